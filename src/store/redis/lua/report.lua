#!lua
-- Tells operators that a replica misses what it was told, unless they have accepted that already.
-- KEYS[1] the agreement  KEYS[2] what replicas have reported: the epoch that each has known
-- ARGV[1] replica  ARGV[2] the epoch that it has known
-- Replies: reported · accepted: it may take the epoch that is on record
for epoch in string.gmatch(redis.call('HGET', KEYS[1], 'accepted') or '', '%S+') do
  if epoch == ARGV[2] then
    return { 'accepted' }
  end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return { 'reported' }
