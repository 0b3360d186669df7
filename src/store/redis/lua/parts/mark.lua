-- The mark of this replica in this partition grows with every step. ARGV ends with its name and with what the
-- replica knows it to be at least: a mark that is not above it has lost what was acknowledged.
local mark_floor = tonumber(table.remove(ARGV))
local mark_key = KEYS[1] .. 'mark:' .. table.remove(ARGV)
local mark = redis.call('INCR', mark_key)
if mark <= mark_floor then
  redis.call(mark == 1 and 'DEL' or 'DECR', mark_key)
  return redis.error_reply('STATELOST mark ' .. mark .. ' where ' .. mark_floor .. ' was told')
end
