#!lua
-- Records an API key, once.
-- KEYS[1] root of the partition  KEYS[2] API keys
-- ARGV[1] id  ARGV[2] the key, JSON
-- Replies: created
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
return { 'created' }
