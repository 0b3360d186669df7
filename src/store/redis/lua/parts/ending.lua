-- How tasks end, and how what is left of them expires.
local function expires(id, at)
  redis.call('ZADD', KEYS[1] .. 'expiry', at, id)
end
-- An ended task's next deadline: its keys, its result, itself.
local function next_expiry(task)
  local at = task.kept_until
  local keys = keys_until(task)
  if keys then
    at = math.min(at, keys)
  end
  if task.result_kind and task.result_kind ~= 'expired' then
    at = math.min(at, result_until(task))
  end
  return at
end
local function ended(task, state)
  task.finished_at, task.ready_at, task.behind = now, nil, nil
  never_due(task.id)
  redis.call('DECR', KEYS[1] .. 'open')
  move(task, state)
  if task.callbacks then
    tell_end(task)
  end
end
local function succeed(task, kind, result, blob)
  task.result_kind = kind
  if #result <= SHORT then
    task.result = result
  else
    redis.call('SET', KEYS[1] .. 'result:' .. task.id, result)
  end
  if blob ~= '' then
    redis.call('SADD', KEYS[1] .. 'blobs', blob)
    task.blob = blob
  end
  let_go(task)
  task.due_at, task.error = nil, nil
  if task.is_content then
    local id, resubmissions, first_failed_at = read_claim(task.fingerprint)
    if id == task.id and (resubmissions or first_failed_at) then
      write_claim(task.fingerprint, id)
    end
  end
  if task.files then
    release_files(task)
  end
  if task.attempt > 1 then
    tally(task.user, 'retry_successes', 1)
  end
  ended(task, 'succeeded')
  task.kept_until = math.max(after(task.task_kept), result_until(task))
  expires(task.id, next_expiry(task))
  save(task)
  changed(task.id)
  make_way(task)
end
-- Failed or cancelled. held: a cancelled attempt may still be running.
local function give_up(task, state, error, held)
  local span = state == 'failed' and task.failed_kept or task.task_kept
  task.kept_until = after(math.max(span, task.key_kept, task.window))
  task.error = error or task.error
  if state == 'failed' then
    tally(task.user, 'failures', 1)
    if task.is_content then
      local id, resubmissions, first_failed_at = read_claim(task.fingerprint)
      if id == task.id and not first_failed_at then
        write_claim(task.fingerprint, id, resubmissions, now)
      end
    end
  end
  if task.state == 'queued' then
    leave_queue(task)
  end
  ended(task, state)
  if held then
    expires(task.id, task.due_at or now)
  else
    let_go(task)
    task.due_at = nil
    expires(task.id, next_expiry(task))
  end
  save(task)
  changed(task.id)
  local soonest = redis.call('ZRANGE', KEYS[1] .. 'expiry', 0, 0, 'WITHSCORES')
  if soonest[1] == task.id then
    publish('due %s ' .. soonest[2])
  end
  -- One that gives way to another makes none.
  if not held and not task.superseded_by then
    make_way(task)
  end
end
local function attempt_over(task)
  if task.started_at then
    latency(task.user, 'run', now - task.started_at)
  end
end
-- A cancelled attempt has stopped, or its lease is over: its content is free again.
local function confirm_stopped(task)
  let_go(task)
  task.due_at = nil
  expires(task.id, next_expiry(task))
  save(task)
  changed(task.id)
  make_way(task)
end
-- Takes the result away; gives the copy that nobody owns now. The caller saves the task.
local function disown_result(task)
  local blob = task.blob
  task.result, task.blob = nil, nil
  redis.call('DEL', KEYS[1] .. 'result:' .. task.id)
  if blob then
    redis.call('SREM', KEYS[1] .. 'blobs', blob)
  end
  return blob
end
-- Makes a tombstone of an ended task; gives the copy that nobody owns now.
local function forget(task)
  local blob = disown_result(task)
  if task.is_content and read_claim(task.fingerprint) == task.id then
    redis.call('DEL', claim_key(task.fingerprint))
  end
  if task.files and task.state ~= 'succeeded' then
    release_files(task)
  end
  if task.callbacks then
    forget_callbacks(task.id)
  end
  if task.matching then
    leave_matching(task)
  end
  for _, name in ipairs(cjson.decode(task.tags or '[]')) do
    redis.call('ZREM', KEYS[1] .. 'tag:' .. task.user .. ',' .. name, task.id)
  end
  redis.call('DEL', KEYS[1] .. 'ledger:' .. task.id, KEYS[1] .. 'body:' .. task.id, withdrawn_key(task.id))
  local buried_at = math.max(after(task.key_kept), keys_until(task) or now)
  task.fingerprint, task.rule, task.is_content, task.files, task.tags, task.body = nil, nil, nil, nil, nil, nil
  task.error, task.progress, task.result_kind, task.trail, task.callbacks = nil, nil, nil, nil, nil
  task.matching, task.superseded_by = nil, nil
  task.kept_until = buried_at
  move(task, nil)
  task.state = 'tombstone'
  save(task)
  expires(task.id, buried_at)
  changed(task.id)
  return blob
end
