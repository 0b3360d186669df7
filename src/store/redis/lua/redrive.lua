#!lua
-- Runs a failed or cancelled task again with a new budget of attempts, unless its content is taken.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user
-- Replies: done, record · blocked, task · succeeded, record · unknown · forgotten
if missing then
  return { missing }
end
if task.state == 'succeeded' then
  return { 'succeeded', shown(task) }
elseif not is_ended(task) then
  return { 'done', shown(task) }
elseif task.held then
  return { 'blocked', id }
end
if task.matching then
  for _, other in ipairs(matched(task.matching)) do
    if other.id ~= id and may_run(other) then
      return { 'blocked', other.id }
    end
  end
end
if task.is_content then
  local other, resubmissions, first_failed_at = claimed(task.fingerprint)
  if other and other.id ~= id
    and standing(other, resubmissions, first_failed_at, task.window, math.huge) == 'answers' then
    return { 'blocked', other.id }
  end
  write_claim(task.fingerprint, id)
end
task.max_attempts = (task.attempt or 0) + task.budget
task.finished_at, task.kept_until = nil, nil
task.result_kind, task.result, task.progress, task.error = nil, nil, nil, nil
-- It is wanted again, by whoever asks for it and by all who did.
task.superseded_by, task.keyless = nil, true
redis.call('DEL', root .. 'result:' .. id, withdrawn_key(id))
if task.matching then
  redis.call('ZADD', matching_key(task.matching), task.seq, id)
end
redis.call('ZREM', root .. 'expiry', id)
redis.call('INCR', root .. 'open')
if task.callbacks then
  redis.call('SADD', root .. 'awaited', id)
end
requeue(task, now)
return { 'done', shown(task) }
