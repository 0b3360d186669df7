#!lua
-- Keeps a schedule. One whose timing stays as it was goes on from where it stands.
-- KEYS[1] root of the partition
-- ARGV[1] user  ARGV[2] name  ARGV[3] type  ARGV[4] plan, JSON  ARGV[5] timing  ARGV[6] revision
-- ARGV[7] next firing by the timing, ms, or nothing  ARGV[8] the time that this was found at, ms
-- ARGV[9] how far from that the time may be, ms  ARGV[10] schedules that a user may have
-- Replies: created · replaced, and its fields in pairs · full · otherwise, and the time in ms
local user, name, type, plan, timing, revision = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local next, found_at, apart_max, max = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local key, member = schedule_key(user, name), user .. ',' .. name
local is_there = is_hash(key)
local old = {}
if is_there then
  old = redis.call('HMGET', key, 'type', 'timing', 'next', 'due', 'put', 'created_at', 'updated_at')
end
local at = string.format('%.0f', now)
local function kept(word)
  return { word, redis.call('HGETALL', key) }
end
-- This call's first try may have gone unanswered.
if old[5] == revision then
  return kept(old[6] == old[7] and 'created' or 'replaced')
end
if math.abs(now - found_at) > apart_max then
  return { 'otherwise', at }
end
local was_there = redis.call('SISMEMBER', schedules_key(user), name) == 1
if not was_there and redis.call('SCARD', schedules_key(user)) >= max then
  return { 'full' }
end
local due = next
local function is_time(text)
  return text == '' or tonumber(text)
end
if old[2] == timing and old[3] and is_time(old[3]) and old[4] and is_time(old[4]) then
  next, due = old[3], old[4]
end
if not is_there then
  redis.call('DEL', key)
end
if old[1] then
  redis.call('ZREM', schedules_due_key(old[1]), member)
end
redis.call('HSETNX', key, 'created_at', at)
redis.call('SADD', schedules_key(user), name)
redis.call('HDEL', key, 'refused_at', 'refusal')
redis.call('HSET', key, 'type', type, 'plan', plan, 'timing', timing, 'put', revision, 'revision', revision,
  'next', next, 'due', due, 'updated_at', at)
if due ~= '' then
  redis.call('ZADD', schedules_due_key(type), due, member)
  redis.call('SET', schedules_version_key, revision)
  publish('schedules %s')
end
return kept(is_there and 'replaced' or 'created')
