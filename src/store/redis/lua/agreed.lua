#!lua flags=no-writes
-- What replicas agree on now, and whether one of them misses what it was told.
-- KEYS[1] the agreement  KEYS[2] what replicas have reported: the epoch that each has known
-- ARGV[1] the epoch that the caller knows
-- Replies: agreed, epoch or nothing, lost or whole
local word = 'whole'
for _, epoch in ipairs(redis.call('HVALS', KEYS[2])) do
  if epoch == ARGV[1] then
    word = 'lost'
  end
end
return { 'agreed', redis.call('HGET', KEYS[1], 'epoch') or '', word }
