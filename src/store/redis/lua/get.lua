#!lua flags=no-writes
-- Reads tasks of one user.
-- KEYS[1]  root of the partition
-- ARGV[1]  user
-- ARGV[2…] tasks
-- Replies, for each: found, record · forgotten · unknown
local user = ARGV[1]
local reply = {}
for i = 2, #ARGV do
  local task = load(ARGV[i])
  if not task or task.user ~= user then
    reply[#reply + 1] = { 'unknown' }
  elseif task.state == 'tombstone' then
    reply[#reply + 1] = { 'forgotten' }
  else
    reply[#reply + 1] = { 'found', shown(task) }
  end
end
return reply
