-- Keep the newer of two copies of one zone's count.
-- KEYS[1]  the copy's key.  ARGV[1]  the row's version.  ARGV[2]  the copy, which begins with that version and a space.
-- Returns 1 where the copy was taken, 0 where one as new or newer was there.
local held = redis.call('GET', KEYS[1])
if held and tonumber(string.match(held, '^%d+')) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
