#!lua
-- Sets what a user's webhooks are signed with. The secret before stays valid for a while; the same once more changes
-- nothing.
-- KEYS[1] root of the partition  KEYS[2] secrets of its users
-- ARGV[1] user  ARGV[2] secret  ARGV[3] for how long the one before stays valid, ms
-- Replies: set, when in ms, until when the one before is valid in ms, secret, the one before or nothing
local known = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local set_at, previous_until, secret, previous = string.match(known, '^(%d+) (%d+) (%S+) (%S*)$')
if secret ~= ARGV[2] then
  previous, secret = secret or '', ARGV[2]
  set_at, previous_until = string.format('%.0f', now), string.format('%.0f', after(tonumber(ARGV[3])))
  redis.call('HSET', KEYS[2], ARGV[1], table.concat({ set_at, previous_until, secret, previous }, ' '))
end
return { 'set', set_at, previous_until, secret, previous }
