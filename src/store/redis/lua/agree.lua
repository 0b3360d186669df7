#!lua
-- Agrees on a value: the first one that is proposed stays.
-- KEYS[1] root of the partition  KEYS[2] what was agreed on
-- ARGV[1] name  ARGV[2] the value that is proposed
-- Replies: agreed, the value
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
return { 'agreed', redis.call('HGET', KEYS[2], ARGV[1]) }
