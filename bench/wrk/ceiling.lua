-- POST /ceiling of the reference application: zones at random, another plate each time.
-- Arguments: first number, threads, number of zones.

local common = require("common")

function init(args)
   next_number = common.counter(tonumber(args[1]), tonumber(args[2]))
   zones = tonumber(args[3])
   math.randomseed(tonumber(args[1]) + number)
   wrk.method = "POST"
   wrk.path = "/ceiling"
   wrk.headers["Content-Type"] = "application/json"
end

function request()
   local plate = common.plate(next_number())
   return wrk.format(nil, nil, nil, string.format('{"zone":%d,"plate":"%s"}', math.random(zones), plate))
end
