-- Keep the newer of two copies of each of some zones' counts.
-- KEYS     the copies' keys.  ARGV  for each key, in their order: the row's version, and the copy, which begins with that
--          version and a space.
-- Returns  how many copies were taken; where one as new or newer was there, it stays.
local taken = 0
for i, key in ipairs(KEYS) do
    local held = redis.call('GET', key)
    if not held or tonumber(string.match(held, '^%d+')) < tonumber(ARGV[2 * i - 1]) then
        redis.call('SET', key, ARGV[2 * i])
        taken = taken + 1
    end
end
return taken
