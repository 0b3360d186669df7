#!lua
-- Reads what all replicas agree on. Who starts first writes it, with the time in seconds, unless it remembers that there was something.
-- KEYS[1] the agreement
-- ARGV[1] schema version  ARGV[2] number of partitions  ARGV[3] epoch of a new store
-- ARGV[4] epoch that the caller remembers, or nothing
-- Replies: agreed, schema version, number of partitions, epoch, earlier epochs whose loss was accepted · gone
if redis.call('EXISTS', KEYS[1]) == 0 then
  if ARGV[4] ~= '' then
    return { 'gone' }
  end
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'partitions', ARGV[2], 'began_at', redis.call('TIME')[1])
end
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[3])
local agreed = redis.call('HMGET', KEYS[1], 'schema', 'partitions', 'epoch', 'accepted')
return { 'agreed', agreed[1] or '', agreed[2] or '', agreed[3], agreed[4] or '' }
