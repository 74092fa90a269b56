-- POST /v1/sessions/{id}/stop: each running session once. Having none left is an error, which ends wrk.
-- Arguments: first number, threads, file of sessions (a line: id, space, bearer key of its driver).

local common = require("common")

function init(args)
   next_number = common.counter(1, tonumber(args[2]))
   sessions = common.lines(args[3])
   first = tonumber(args[1])
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
end

function request()
   local i = next_number()
   local id, key = assert(sessions[i], "no session left to stop"):match("^(%S+) (%S+)$")
   wrk.headers["Authorization"] = "Bearer " .. key
   wrk.headers["Idempotency-Key"] = string.format("%012d-%s", first + i, id)
   return wrk.format(nil, "/v1/sessions/" .. id .. "/stop", nil, "{}")
end
