#!lua
-- Puts off what is due and cannot be read, so that it is in nobody's way; what is not there is not due.
-- KEYS[1] root of the partition
-- ARGV[1] type  ARGV[2] user and name  ARGV[3] look at it again so long from now, ms
-- Replies: put_off
local type, member, span = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key, due_key = root .. 'schedule:' .. member, schedules_due_key(type)
local its_type = is_hash(key) and redis.call('HGET', key, 'type')
if redis.call('EXISTS', key) == 0 or its_type and its_type ~= type then
  redis.call('ZREM', due_key, member)
else
  redis.call('ZADD', due_key, 'XX', string.format('%.0f', after(span)), member)
end
return { 'put_off' }
