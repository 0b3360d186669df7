#!lua flags=allow-oom
-- Deletes a schedule, whatever is left of it.
-- KEYS[1] root of the partition
-- ARGV[1] user  ARGV[2] name  ARGV[3] a nonce
-- Replies: deleted · unknown
local user, name, nonce = ARGV[1], ARGV[2], ARGV[3]
local key, gone_key = schedule_key(user, name), root .. 'schedule-gone:' .. user .. ',' .. name
-- A repeat comes within seconds.
local REPEATED_FOR = 60000
local is_there = redis.call('EXISTS', key) == 1 or redis.call('SISMEMBER', schedules_key(user), name) == 1
if not is_there then
  return { redis.call('GET', gone_key) == nonce and 'deleted' or 'unknown' }
end
local type = is_hash(key) and redis.call('HGET', key, 'type')
redis.call('DEL', key)
redis.call('SREM', schedules_key(user), name)
if type then
  redis.call('ZREM', schedules_due_key(type), user .. ',' .. name)
end
redis.call('SET', gone_key, nonce, 'PX', REPEATED_FOR)
return { 'deleted' }
