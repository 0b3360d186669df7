#!lua flags=no-writes
-- Schedules of some types that are due, soonest first.
-- KEYS[1] root of the partition
-- ARGV[1] so many at most, then types
-- Replies: due, now in ms, when the next will be due in ms or nothing, then of each its type, its user and name, and
-- its fields in pairs: none where there is no such schedule
local max = tonumber(ARGV[1])
local at = string.format('%.0f', now)
local soonest
local found = {}
for i = 2, #ARGV do
  local key = schedules_due_key(ARGV[i])
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', at, 'WITHSCORES', 'LIMIT', 0, max)
  for j = 1, #due, 2 do
    found[#found + 1] = { type = ARGV[i], member = due[j], at = tonumber(due[j + 1]) }
  end
  local next = redis.call('ZRANGEBYSCORE', key, '(' .. at, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if next[2] and (not soonest or tonumber(next[2]) < soonest) then
    soonest = tonumber(next[2])
  end
end
table.sort(found, function(a, b)
  return a.at < b.at
end)
local reply = { 'due', at, soonest and string.format('%.0f', soonest) or '' }
for i = 1, math.min(max, #found) do
  local key = root .. 'schedule:' .. found[i].member
  reply[#reply + 1] = found[i].type
  reply[#reply + 1] = found[i].member
  reply[#reply + 1] = is_hash(key) and redis.call('HGETALL', key) or {}
end
return reply
