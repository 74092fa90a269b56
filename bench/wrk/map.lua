-- GET of map views in turn, no two alike, as those of people are: an answer kept for a query string would be of no use.
-- Arguments: first number, threads, then paths that have room for six digits (%06d).

local common = require("common")

function init(args)
   next_number = common.counter(tonumber(args[1]), tonumber(args[2]))
   paths = { unpack(args, 3) }
end

function request()
   local i = next_number()
   return wrk.format("GET", string.format(paths[i % #paths + 1], i % 1000000))
end
