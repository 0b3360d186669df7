#!lua flags=allow-oom
-- Revokes an API key; the first time counts.
-- KEYS[1] root of the partition  KEYS[2] API keys  KEYS[3] times of revocation
-- ARGV[1] id
-- Replies: revoked · unknown
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return { 'unknown' }
end
redis.call('HSETNX', KEYS[3], ARGV[1], now)
return { 'revoked' }
