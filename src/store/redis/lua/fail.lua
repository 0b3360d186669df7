#!lua flags=allow-oom
-- Records a failed attempt.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user  ARGV[3] fencing token
-- ARGV[4] error, JSON  ARGV[5] the next attempt after so many ms, or nothing
-- Replies: recorded, record · lost
local error, retry_in = ARGV[4], ARGV[5]
if not holds then
  -- The step once more, after its outcome was unknown.
  if task and not task.held and task.token == token and task.state ~= 'tombstone'
    and (task.error == error or task.state == 'cancelled') then
    return { 'recorded', shown(id) }
  end
  return lost()
end
attempt_over(task)
if task.state == 'cancelled' then
  confirm_stopped(id)
elseif retry_in ~= '' and tonumber(task.attempt) < tonumber(task.max_attempts or kept(task).budget) then
  local next_at = after(tonumber(retry_in))
  redis.call('HSET', task_key(id), 'state', 'retrying', 'due_at', next_at, 'error', error)
  redis.call('HDEL', task_key(id), 'held', 'ready_at')
  due(id, next_at)
  moved(id, task, 'retrying')
else
  give_up(id, task, 'failed', error, false)
end
return { 'recorded', shown(id) }
