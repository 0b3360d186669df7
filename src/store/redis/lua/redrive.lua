#!lua
-- Runs a failed or cancelled task again with a new budget of attempts, unless its content is taken.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user
-- Replies: done, record · blocked, task · succeeded, record · unknown · forgotten
if missing then
  return { missing }
end
if task.state == 'succeeded' then
  return { 'succeeded', shown(id) }
elseif not is_ended(task) then
  return { 'done', shown(id) }
elseif task.held then
  return { 'blocked', id }
end
local keep = kept(task)
if task.fingerprint then
  local other, resubmissions, first_failed_at = claimed(task.fingerprint)
  if other and other.id ~= id
    and standing(other, resubmissions, first_failed_at, keep.window, math.huge) == 'answers' then
    return { 'blocked', other.id }
  end
  redis.call('HSET', root .. 'claim:' .. task.fingerprint, 'task', id)
  redis.call('HDEL', root .. 'claim:' .. task.fingerprint, 'resubmissions', 'first_failed_at')
end
redis.call('HSET', task_key(id), 'max_attempts', tonumber(task.attempt or 0) + keep.budget)
redis.call('HDEL', task_key(id), 'finished_at', 'dedup_expires_at', 'result_until', 'kept_until', 'result_kind',
  'progress', 'error')
redis.call('DEL', root .. 'result:' .. id)
redis.call('ZREM', root .. 'expiry', id)
redis.call('INCR', root .. 'open')
requeue(id, task, now)
return { 'done', shown(id) }
