#!lua flags=allow-oom
-- Folds counts that wait into the buckets that windows are summed from, for their user and for everyone.
-- KEYS[1]  root of the partition
-- ARGV[1]  counts at most
-- ARGV[2…] for each span: length of a bucket in ms (0: since ever), how long it is kept in ms
-- Replies: folded, counts that still wait
local max = tonumber(ARGV[1])
local LATENCY_KEPT = 3 * 3600000

local function add(key, field, by, kept)
  if redis.call('HINCRBY', key, field, by) == tonumber(by) and kept then
    redis.call('PEXPIRE', key, kept)
  end
end

local function tally(at, name, user, by)
  for i = 2, #ARGV, 2 do
    local span, kept = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
    local bucket = span == 0 and 0 or at - at % span
    local key = string.format('%stally:%d:%.0f:', root, span, bucket)
    add(key .. user, name, by, span > 0 and kept)
    add(key, name, by, span > 0 and kept)
  end
end

local function gauge(user, type, state, by)
  if state ~= '-' then
    redis.call('HINCRBY', root .. 'gauge:' .. user, state .. ' ' .. type, by)
    redis.call('HINCRBY', root .. 'gauge:', state .. ' ' .. type, by)
  end
end

local function fold(what, by)
  local at, name, user = string.match(what, '^tally (%d+) (%S+) (%S+)$')
  if at then
    return tally(tonumber(at), name, user, by)
  end
  local since, state, owner, type = string.match(what, '^accepted (%d+) (%S+) (%S+) (%S+)$')
  if since then
    tally(tonumber(since), 'accepted', owner, by)
    return gauge(owner, type, state, by)
  end
  local from, to, whom, kind = string.match(what, '^moved (%S+) (%S+) (%S+) (%S+)$')
  if from then
    gauge(whom, kind, from, -by)
    return gauge(whom, kind, to, by)
  end
  local hour, metric, bucket, whose = string.match(what, '^latency (%d+) (%S+) (%d+) (%S+)$')
  local key = root .. 'latency:' .. hour .. ':'
  add(key .. whose, metric .. ' ' .. bucket, by, LATENCY_KEPT)
  add(key, metric .. ' ' .. bucket, by, LATENCY_KEPT)
end

local fresh = root .. 'fresh'
local waiting = redis.call('HRANDFIELD', fresh, max, 'WITHVALUES')
for i = 1, #waiting, 2 do
  if waiting[i + 1] ~= '0' then
    fold(waiting[i], waiting[i + 1])
  end
  redis.call('HDEL', fresh, waiting[i])
end
return { 'folded', tostring(redis.call('HLEN', fresh)) }
