-- GET of several paths in turn.
-- Arguments: the paths.

require("common")

function init(args)
   requests = {}
   for i = 1, #args do
      requests[i] = wrk.format("GET", args[i])
   end
   turn = number
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end
