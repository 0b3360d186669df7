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
    return { 'recorded', shown(task) }
  end
  return lost()
end
attempt_over(task)
if task.state == 'cancelled' then
  confirm_stopped(task)
elseif retry_in ~= '' and task.attempt < (task.max_attempts or task.budget) then
  local next_at = after(tonumber(retry_in))
  let_go(task)
  task.due_at, task.error, task.ready_at = next_at, error, nil
  due(id, next_at)
  move(task, 'retrying')
  save(task)
  changed(id)
else
  give_up(task, 'failed', error, false)
end
return { 'recorded', shown(task) }
