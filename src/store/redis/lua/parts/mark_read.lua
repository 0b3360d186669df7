-- The mark of this replica in this partition, as in mark.lua, for a step that changes nothing.
local mark_floor = tonumber(table.remove(ARGV))
local mark = tonumber(redis.call('GET', KEYS[1] .. 'mark:' .. table.remove(ARGV)) or 0)
if mark < mark_floor then
  return redis.error_reply('STATELOST mark ' .. mark .. ' where ' .. mark_floor .. ' was told')
end
