#!lua
-- Writes what all replicas must agree on at the first start, and reads it at every other.
-- KEYS[1] the agreement
-- ARGV[1] schema version  ARGV[2] number of partitions
-- Replies: agreed, schema version, number of partitions
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'partitions', ARGV[2])
end
local agreed = redis.call('HMGET', KEYS[1], 'schema', 'partitions')
return { 'agreed', agreed[1] or '', agreed[2] or '' }
