#!lua
-- Takes permits to start attempts of a type whose starts are bounded over all users, and gives back what was not used.
-- KEYS[1] root of the partition  KEYS[2] the permits, by when they were taken
-- ARGV[1] name of the call, which is the nonce  ARGV[2] permits wanted  ARGV[3] permits that were taken under this name
--         and are not used  ARGV[4] so many at most  ARGV[5] within so many ms
-- Replies: taken, permits, when there will be one in ms from now, or nothing while there are some
local name, wanted, unused, max, span = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - span)
for i = 1, unused do
  redis.call('ZREM', KEYS[2], name .. ' ' .. i)
end
local taken = math.max(math.min(wanted, max - redis.call('ZCARD', KEYS[2])), 0)
for i = 1, taken do
  redis.call('ZADD', KEYS[2], now, name .. ' ' .. i)
end
redis.call('PEXPIRE', KEYS[2], span)
local last = redis.call('ZRANGE', KEYS[2], -max, -max, 'WITHSCORES')
return { 'taken', taken, last[2] and string.format('%.0f', math.max(last[2] + span - now, 0)) or '' }
