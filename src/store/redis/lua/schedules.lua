#!lua flags=no-writes
-- A schedule, or all of a user's.
-- KEYS[1] root of the partition
-- ARGV[1] user  ARGV[2] name, or nothing for all
-- Replies: schedules, then of each its name, and its fields in pairs: none where somebody has put something else
local user, name = ARGV[1], ARGV[2]
local names = name ~= '' and { name } or redis.call('SMEMBERS', schedules_key(user))
local reply = { 'schedules' }
for _, each in ipairs(names) do
  local key = schedule_key(user, each)
  if redis.call('EXISTS', key) == 1 then
    reply[#reply + 1] = each
    reply[#reply + 1] = is_hash(key) and redis.call('HGETALL', key) or {}
  end
end
return reply
