#!lua flags=allow-oom
-- Records a task's success.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user  ARGV[3] fencing token
-- ARGV[4] kind of the result: inline or blob  ARGV[5] the result  ARGV[6] name of the copy, or nothing
-- Replies: recorded, record · lost
local kind, result, blob = ARGV[4], ARGV[5], ARGV[6]
if not holds then
  if task and task.token == token and task.state == 'succeeded' then
    return { 'recorded', shown(task) }
  end
  return lost()
end
attempt_over(task)
if task.state == 'cancelled' then
  confirm_stopped(task)
  return lost()
end
succeed(task, kind, result, blob)
return { 'recorded', shown(task) }
