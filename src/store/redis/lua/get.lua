#!lua flags=no-writes
-- Reads tasks of one user.
-- KEYS[1]  root of the partition
-- ARGV[1]  user
-- ARGV[2…] tasks
-- Replies, for each: found, record · forgotten · unknown
local root, user = KEYS[1], ARGV[1]
local reply = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local known = redis.call('HMGET', root .. 'task:' .. id, 'user', 'state')
  if known[1] ~= user then
    reply[#reply + 1] = { 'unknown' }
  elseif known[2] == 'tombstone' then
    reply[#reply + 1] = { 'forgotten' }
  else
    reply[#reply + 1] = { 'found', {
      id,
      redis.call('HGETALL', root .. 'task:' .. id),
      redis.call('GET', root .. 'body:' .. id),
      redis.call('GET', root .. 'result:' .. id),
    } }
  end
end
return reply
