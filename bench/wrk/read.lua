-- GET /read/N of the reference application: another row each time.
-- Arguments: first number, threads, number of rows.

local common = require("common")

function init(args)
   next_number = common.counter(tonumber(args[1]), tonumber(args[2]))
   rows = tonumber(args[3])
end

function request()
   local _, n = common.plate(next_number())
   return wrk.format("GET", "/read/" .. n % rows + 1)
end
