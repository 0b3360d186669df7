#!lua flags=no-writes
-- Schedules of some types that are due, soonest first.
-- KEYS[1] root of the partition
-- ARGV[1] so many at most, then types
-- Replies: due, now in ms, the version or nothing, when the next will be due in ms or nothing, then of each its type, its
-- user and name, and its fields in pairs: none where there is no such schedule
local max = tonumber(ARGV[1])
local at = string.format('%.0f', now)
local soonest
local found = {}
for i = 2, #ARGV do
  local key = schedules_due_key(ARGV[i])
  -- One more than may be due, for what follows it.
  local first = redis.call('ZRANGE', key, 0, max, 'WITHSCORES')
  for j = 1, #first, 2 do
    local due_at = tonumber(first[j + 1])
    if due_at > now then
      soonest = math.min(soonest or due_at, due_at)
      break
    end
    found[#found + 1] = { type = ARGV[i], member = first[j], at = due_at }
  end
end
table.sort(found, function(a, b)
  return a.at < b.at
end)
local reply = { 'due', at, redis.call('GET', schedules_version_key) or '', soonest and string.format('%.0f', soonest) or '' }
for i = 1, math.min(max, #found) do
  local key = root .. 'schedule:' .. found[i].member
  reply[#reply + 1] = found[i].type
  reply[#reply + 1] = found[i].member
  reply[#reply + 1] = is_hash(key) and redis.call('HGETALL', key) or {}
end
return reply
