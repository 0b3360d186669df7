#!lua
-- Leaves the replica's mark, which it is held to from now on; beside the agreement only while that names the epoch.
-- KEYS[1] root of the partition  KEYS[2] the agreement, where it is in this partition
-- ARGV[1] the epoch
-- Replies: registered · over: another epoch is on record, or none
if KEYS[2] and redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then
  return { 'over' }
end
promised = true
return { 'registered' }
