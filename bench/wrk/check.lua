-- POST /v1/enforcement/checks, seen now: two in three of a vehicle that is parked there, one in three of one that is not;
-- by stated zone and by position in turn. Another key each time.
-- Arguments: first number, threads, bearer key, file of sightings (a line: plate, zone, lat, lng).

local common = require("common")

function init(args)
   next_number = common.counter(tonumber(args[1]), tonumber(args[2]))
   seen = common.lines(args[4])
   wrk.method = "POST"
   wrk.path = "/v1/enforcement/checks"
   wrk.headers["Content-Type"] = "application/json"
   wrk.headers["Authorization"] = "Bearer " .. args[3]
end

function request()
   local i = next_number()
   local other, n = common.plate(i)
   local plate, zone, lat, lng = seen[n % #seen + 1]:match("^(%S+) (%S+) (%S+) (%S+)$")
   local place = string.format('"zone":"%s"', zone)
   if math.floor(i / 2) % 2 == 0 then
      place = string.format('"position":{"lat":%s,"lng":%s,"accuracy":8}', lat, lng)
   end
   wrk.headers["Idempotency-Key"] = string.format("%08d-0000-4000-8000-%012d", n, i)
   return wrk.format(nil, nil, nil, string.format(
      '{"plate":"%s","vehicle_class":"car",%s,"captured_at":"%s"}',
      i % 3 == 0 and other or plate, place, os.date("!%Y-%m-%dT%H:%M:%SZ")))
end
