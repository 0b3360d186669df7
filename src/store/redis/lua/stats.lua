#!lua flags=no-writes
-- What is counted here for one user, or for everyone. Fold first.
-- KEYS[1]  root of the partition
-- ARGV[1]  user, or nothing
-- ARGV[2…] for each window: length of its buckets in ms (0: since ever), length of the window in ms
-- Replies: counted, now, since when the oldest ready task waits or nothing, then tasks by state and type as
--   [state and type, count, …], then for each window [name, count, …], then latencies as [metric and bucket, count, …]
local user = ARGV[1]
-- Users of a type who are looked at, at most.
local USERS_MAX = 1000

local function oldest_of_user()
  local first = redis.call('ZRANGE', root .. 'list:queued:' .. user, 0, 0)[1]
  local task = first and load(first)
  return task and string.format('%.0f', task.ready_at)
end

local gauges = redis.call('HGETALL', root .. 'gauge:' .. user)

-- The first in line of those users of each type who have waited longest for their turn.
local function oldest_of_all()
  local oldest, seen = nil, {}
  for i = 1, #gauges, 2 do
    local type = string.match(gauges[i], ' (.*)$')
    local users = seen[type] and {} or redis.call('ZRANGE', turns_key(type), 0, USERS_MAX - 1)
    seen[type] = true
    for _, user in ipairs(users) do
      local first = redis.call('ZRANGE', line_key(type, user), 0, 0)[1]
      local task = first and load_if_whole(string.match(first, '^%d+ (%S+)') or '')
      if task and task.ready_at then
        oldest = math.min(oldest or task.ready_at, task.ready_at)
      end
    end
  end
  return oldest and string.format('%.0f', oldest)
end

local function add_up(key, sums)
  local counts = redis.call('HGETALL', key)
  for i = 1, #counts, 2 do
    sums[counts[i]] = (sums[counts[i]] or 0) + counts[i + 1]
  end
end

local function flat(sums)
  local list = {}
  for name, sum in pairs(sums) do
    list[#list + 1] = name
    list[#list + 1] = string.format('%.0f', sum)
  end
  return list
end

local function window(span, length)
  local sums = {}
  if span == 0 then
    add_up(root .. 'tally:0:0:' .. user, sums)
  else
    for at = now - now % span, now - length - span + 1, -span do
      add_up(string.format('%stally:%d:%.0f:%s', root, span, at, user), sums)
    end
  end
  return flat(sums)
end

local reply = { 'counted', tostring(now), (user == '' and oldest_of_all() or user ~= '' and oldest_of_user()) or '', gauges }
for i = 2, #ARGV, 2 do
  reply[#reply + 1] = window(tonumber(ARGV[i]), tonumber(ARGV[i + 1]))
end
local latencies = {}
for back = 0, 1 do
  local hour = now - now % 3600000 - back * 3600000
  add_up(string.format('%slatency:%.0f:%s', root, hour, user), latencies)
end
reply[#reply + 1] = flat(latencies)
return reply
