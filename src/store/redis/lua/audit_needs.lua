#!lua flags=no-writes
-- Counts the tasks that need a file, in one step, where those of its user are not too many.
-- KEYS[1]  root of the partition
-- ARGV[1]  sha256  ARGV[2]  user  ARGV[3]  tasks at most
-- Replies: agree · differ, what the file's record counts, tasks that need it · many
local sha256, user, max = ARGV[1], ARGV[2], tonumber(ARGV[3])
local lists, size = {}, 0
for i, state in ipairs({ 'scheduled', 'queued', 'running', 'retrying', 'failed', 'cancelled' }) do
  lists[i] = list_key(state, user)
  size = size + redis.call('ZCARD', lists[i])
end
if size > max then
  return { 'many' }
end
local need = 0
for _, list in ipairs(lists) do
  for _, id in ipairs(redis.call('ZRANGE', list, 0, -1)) do
    local task = load(id)
    for named in string.gmatch(task and task.files or '', '(%x+):%x+:%d+') do
      if named == sha256 then
        need = need + 1
      end
    end
  end
end
local refs = redis.call('HGET', file_key(user, sha256), 'refs') or '0'
if tonumber(refs) == need then
  return { 'agree' }
end
return { 'differ', refs, tostring(need) }
