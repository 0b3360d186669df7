#!lua flags=no-writes
-- Which copies some record of the partition names.
-- KEYS[1]  root of the partition
-- ARGV[1…] names of copies
-- Replies: owned, then 1 or 0 for each
local reply = redis.call('SMISMEMBER', KEYS[1] .. 'blobs', unpack(ARGV))
table.insert(reply, 1, 'owned')
return reply
