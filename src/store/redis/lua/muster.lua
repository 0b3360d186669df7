#!lua flags=allow-oom
-- Says that a replica is there and what its workers do, and counts those of all that were there lately.
-- KEYS[1] root of the first partition  KEYS[2] replicas
-- ARGV[1] replica  ARGV[2] busy workers  ARGV[3] idle workers  ARGV[4] more about them, JSON
-- ARGV[5] sums, or all to be told of each replica
-- Replies: mustered, busy, idle, replicas, then for each: when it was there in ms, busy workers, more about them
local LATELY = 5000
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %s %s %s', now, ARGV[2], ARGV[3], ARGV[4]))
local all = redis.call('HGETALL', KEYS[2])
local busy, idle, replicas = 0, 0, 0
local each = {}
for i = 1, #all, 2 do
  local at, its_busy, its_idle, more = string.match(all[i + 1], '^(%d+) (%d+) (%d+) (.*)$')
  if at and now - at < LATELY then
    busy, idle, replicas = busy + its_busy, idle + its_idle, replicas + 1
    each[#each + 1] = at
    each[#each + 1] = its_busy
    each[#each + 1] = more
  else
    redis.call('HDEL', KEYS[2], all[i])
  end
end
if ARGV[5] ~= 'all' then
  each = {}
end
return {
  'mustered', string.format('%.0f', busy), string.format('%.0f', idle), tostring(replicas), unpack(each),
}
