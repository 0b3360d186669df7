#!lua
-- Accepts what was lost: a new epoch begins, which every replica takes that has known one of the lost ones.
-- KEYS[1] the agreement  KEYS[2] what replicas have reported: the epoch that each has known
-- ARGV[1] schema version  ARGV[2] number of partitions  ARGV[3] the new epoch
-- Replies: accepted, number of reports · nothing
local EPOCHS_MAX = 64
-- The step once more: what was reported since then is for the operator to see first.
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[3] then
  return { 'accepted', redis.call('HGET', KEYS[1], 'reports') or '0' }
end
local reports = redis.call('HVALS', KEYS[2])
if #reports == 0 then
  return { 'nothing' }
end
local lost, seen = {}, {}
local function also(epoch)
  if epoch and not seen[epoch] and #lost < EPOCHS_MAX then
    seen[epoch] = true
    lost[#lost + 1] = epoch
  end
end
for _, epoch in ipairs(reports) do
  also(epoch)
end
also(redis.call('HGET', KEYS[1], 'epoch'))
for epoch in string.gmatch(redis.call('HGET', KEYS[1], 'accepted') or '', '%S+') do
  also(epoch)
end
redis.call('HSETNX', KEYS[1], 'schema', ARGV[1])
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'accepted', table.concat(lost, ' '), 'reports', #reports,
  'began_at', redis.call('TIME')[1])
redis.call('DEL', KEYS[2])
return { 'accepted', tostring(#reports) }
