#!lua
-- Records an API key, once.
-- KEYS[1] root of the partition  KEYS[2] API keys
-- ARGV[1] id  ARGV[2] the key, JSON  ARGV[3] first, if no other may be there
-- Replies: created · taken
if ARGV[3] == 'first' and redis.call('HLEN', KEYS[2]) > redis.call('HEXISTS', KEYS[2], ARGV[1]) then
  return { 'taken' }
end
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
return { 'created' }
