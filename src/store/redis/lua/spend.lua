#!lua
-- Takes requests that users may send in a window, which begins with the first of them.
-- KEYS[1]  root of the partition
-- ARGV[1]  length of a window in ms
-- ARGV     then for each request: its user, requests of that user at most
-- Replies, for each: taken, requests left, ms until the window ends · over, 0, the same
local window = tonumber(ARGV[1])
local function spend(user, max)
  local key = root .. 'requests:' .. user
  local used, ends_in = tonumber(redis.call('GET', key) or 0), redis.call('PTTL', key)
  if ends_in <= 0 then
    used, ends_in = 0, window
  end
  if used >= max then
    return { 'over', '0', tostring(ends_in) }
  elseif used == 0 then
    redis.call('SET', key, 1, 'PX', window)
  else
    redis.call('INCR', key)
  end
  return { 'taken', tostring(max - used - 1), tostring(ends_in) }
end
local replies = {}
for i = 2, #ARGV, 2 do
  replies[#replies + 1] = spend(ARGV[i], tonumber(ARGV[i + 1]))
end
return replies
