#!lua flags=allow-oom
-- Renews a lease, and records progress, or passes it on to a worker outside.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user  ARGV[3] fencing token  ARGV[4] lease, ms  ARGV[5] progress, JSON, or nothing
-- ARGV[6] name of the worker outside that holds it from now on, or nothing
-- Replies: recorded, until when in ms, cancelled or running · lost
local lease, progress, worker = tonumber(ARGV[4]), ARGV[5], ARGV[6]
if not holds then
  return lost()
end
local expires_at = after(lease)
task.due_at = expires_at
local is_news = progress ~= '' and progress ~= task.progress
if is_news then
  task.progress = progress
  if task.state == 'running' then
    note_change(task, 'p')
  end
end
if worker ~= '' and not is_outside(task) then
  task.lease_nonce = OUTSIDE .. (task.lease_nonce or '')
end
save(task)
if task.state == 'running' then
  due(id, expires_at)
else
  redis.call('ZADD', root .. 'expiry', expires_at, id)
end
if worker ~= '' then
  redis.call('HSET', root .. 'outside', id, string.format('%.0f %.0f %s %s', now, task.started_at, task.type, worker))
elseif is_outside(task) then
  local rest = string.match(redis.call('HGET', root .. 'outside', id) or '', ' (.*)$')
  if rest then
    redis.call('HSET', root .. 'outside', id, string.format('%.0f %s', now, rest))
  end
end
if is_news then
  changed(id)
end
return { 'recorded', expires_at, task.state }
