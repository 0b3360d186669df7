#!lua flags=no-writes
-- What is counted here for one user, bucket by bucket. Fold first.
-- KEYS[1]  root of the partition
-- ARGV[1]  user  ARGV[2] length of a bucket in ms
-- ARGV[3…] beginnings of buckets in ms
-- Replies: counted, then for each bucket in which anything was counted its beginning and [name, count, …]
local user, span = ARGV[1], ARGV[2]
local reply = { 'counted' }
for i = 3, #ARGV do
  local counts = redis.call('HGETALL', KEYS[1] .. 'tally:' .. span .. ':' .. ARGV[i] .. ':' .. user)
  if #counts > 0 then
    reply[#reply + 1] = ARGV[i]
    reply[#reply + 1] = counts
  end
end
return reply
