-- POST /v1/sessions: another plate, key and driver each time, zones at random, prepaid and open sessions in turn.
-- Arguments: first number, threads, file of bearer keys, file of zone codes, payment method.

local common = require("common")
local STAYS = { ',"minutes":60', ',"minutes":120', "" }

function init(args)
   next_number = common.counter(tonumber(args[1]), tonumber(args[2]))
   keys = common.lines(args[3])
   zones = common.lines(args[4])
   method = args[5]
   math.randomseed(tonumber(args[1]) + number)
   wrk.method = "POST"
   wrk.path = "/v1/sessions"
   wrk.headers["Content-Type"] = "application/json"
end

function request()
   local i = next_number()
   local plate, n = common.plate(i)
   wrk.headers["Authorization"] = "Bearer " .. keys[i % #keys + 1]
   wrk.headers["Idempotency-Key"] = string.format("%08d-0000-4000-8000-%012d", n, i)
   return wrk.format(nil, nil, nil, string.format(
      '{"zone":"%s","plate":"%s","vehicle_class":"car","payment_method":"%s"%s}',
      zones[math.random(#zones)], plate, method, STAYS[i % 3 + 1]))
end
