#!lua flags=allow-oom
-- Forgets an ended task: its content may run anew, its keys answer as forgotten.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user
-- Replies: forgotten-now, copy that nobody owns now, or nothing · unfinished · unknown · forgotten
if missing then
  return { missing }
end
if not is_ended(task) or task.held then
  return { 'unfinished' }
end
redis.call('INCR', root .. 'changes')
return { 'forgotten-now', forget(task) or '' }
