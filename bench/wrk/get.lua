-- GET of one path, the same each time.
-- Arguments: the path.

require("common")

function init(args)
   wrk.path = args[1]
end
