#!lua
-- Pauses or resumes types of tasks.
-- KEYS[1] root of the first partition  KEYS[2] types that are paused, and since when, ms
-- ARGV[1] pause or resume  ARGV[2] type
-- Replies: paused · resumed
local what, type = ARGV[1], ARGV[2]
if what == 'pause' then
  redis.call('HSETNX', KEYS[2], type, string.format('%.0f', now))
else
  redis.call('HDEL', KEYS[2], type)
end
publish('pauses %s')
return { what .. 'd' }
