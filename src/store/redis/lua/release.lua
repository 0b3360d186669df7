#!lua flags=allow-oom
-- Hands a lease back unfinished: the attempt does not count.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user  ARGV[3] fencing token
-- Replies: recorded · lost
if not holds then
  -- The step once more: nobody has taken the task since.
  if task and not task.held and task.token == token and not is_ended(task) then
    return { 'recorded' }
  end
  return lost()
end
if task.state == 'cancelled' then
  confirm_stopped(task)
else
  task.attempt = task.attempt - 1
  requeue(task, task.ready_at or now)
end
return { 'recorded' }
