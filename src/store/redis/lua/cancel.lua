#!lua flags=allow-oom
-- Cancels a task; an attempt that runs is told when it renews its lease.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user
-- Replies: cancelled, record, stopping or stopped · ended, record · unknown · forgotten
if missing then
  return { missing }
end
if task.state == 'succeeded' or task.state == 'failed' then
  return { 'ended', shown(task) }
end
if task.state ~= 'cancelled' then
  give_up(task, 'cancelled', nil, task.held)
end
return { 'cancelled', shown(task), task.held and 'stopping' or 'stopped' }
