-- What the partition's keys begin with.
local root = KEYS[1]
-- The mark of this replica in this partition. ARGV ends with its name and with what the replica was told it to be:
-- where it is lower, what was promised with it is not there any more.
local mark_told = tonumber(table.remove(ARGV))
local mark_key = root .. 'mark:' .. table.remove(ARGV)
local mark = tonumber(redis.call('GET', mark_key) or 0)
if mark < mark_told then
  return redis.error_reply('STATELOST mark ' .. mark .. ' where ' .. mark_told .. ' was told')
end
-- Whether the answer promises something, where only the verb knows.
local promised = false
