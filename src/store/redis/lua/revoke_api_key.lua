#!lua flags=allow-oom
-- Revokes an API key; the first time counts.
-- KEYS[1] API keys  KEYS[2] times of revocation
-- ARGV[1] id
-- Replies: revoked · unknown
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return { 'unknown' }
end
redis.call('HSETNX', KEYS[2], ARGV[1], now)
return { 'revoked' }
