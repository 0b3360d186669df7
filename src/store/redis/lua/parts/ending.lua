-- How tasks end, and how what is left of them expires.
local function expires(id, at)
  redis.call('ZADD', KEYS[1] .. 'expiry', at, id)
end
-- An ended task's next deadline: its keys, its result, itself.
local function next_expiry(task)
  local at = tonumber(task.kept_until)
  local keys = keys_until(task)
  if keys then
    at = math.min(at, keys)
  end
  if task.result_until and task.result_kind ~= 'expired' then
    at = math.min(at, tonumber(task.result_until))
  end
  return at
end
local function ended(id, task, state)
  never_due(id)
  redis.call('DECR', KEYS[1] .. 'open')
  moved(id, task, state)
end
local function succeed(id, task, kind, result, blob)
  local keep = kept(task)
  local result_until = after(math.max(keep.result, keep.key, keep.window))
  local kept_until = math.max(after(keep.task), result_until)
  redis.call('SET', KEYS[1] .. 'result:' .. id, result)
  if blob ~= '' then
    redis.call('SADD', KEYS[1] .. 'blobs', blob)
  end
  redis.call('HSET', task_key(id), 'state', 'succeeded', 'finished_at', now, 'result_until', result_until,
    'kept_until', kept_until, 'result_kind', kind)
  redis.call('HDEL', task_key(id), 'held', 'due_at', 'error')
  if blob ~= '' then
    redis.call('HSET', task_key(id), 'blob', blob)
  end
  if task.fingerprint then
    redis.call('HSET', task_key(id), 'dedup_expires_at', after(keep.window))
    local claim = KEYS[1] .. 'claim:' .. task.fingerprint
    if redis.call('HGET', claim, 'task') == id then
      redis.call('HDEL', claim, 'first_failed_at', 'resubmissions')
    end
  end
  release_files(task)
  if tonumber(task.attempt) > 1 then
    tally(task.user, 'retry_successes', 1)
  end
  ended(id, task, 'succeeded')
  expires(id, next_expiry(load(id)))
end
-- Failed or cancelled. held: a cancelled attempt may still be running.
local function give_up(id, task, state, error, held)
  local keep = kept(task)
  local span = state == 'failed' and keep.failed or keep.task
  redis.call('HSET', task_key(id), 'state', state, 'finished_at', now, 'kept_until', after(math.max(span, keep.key, keep.window)))
  if error then
    redis.call('HSET', task_key(id), 'error', error)
  end
  if state == 'failed' then
    tally(task.user, 'failures', 1)
    local claim = task.fingerprint and KEYS[1] .. 'claim:' .. task.fingerprint
    if claim and redis.call('HGET', claim, 'task') == id then
      redis.call('HSETNX', claim, 'first_failed_at', now)
    end
  end
  if task.state == 'queued' then
    leave_queue(id, task)
  end
  ended(id, task, state)
  if held then
    redis.call('HDEL', task_key(id), 'ready_at')
    expires(id, task.due_at or now)
  else
    redis.call('HDEL', task_key(id), 'ready_at', 'held', 'due_at')
    expires(id, next_expiry(load(id)))
  end
  local soonest = redis.call('ZRANGE', KEYS[1] .. 'expiry', 0, 0, 'WITHSCORES')
  if soonest[1] == id then
    publish('due %s ' .. soonest[2])
  end
end
local function attempt_over(task)
  if task.started_at then
    latency(task.user, 'run', now - task.started_at)
  end
end
-- A cancelled attempt has stopped, or its lease is over: its content is free again.
local function confirm_stopped(id)
  redis.call('HDEL', task_key(id), 'held', 'due_at')
  expires(id, next_expiry(load(id)))
  changed(id)
end
-- Takes the result away; gives the copy that nobody owns now.
local function disown_result(id, task)
  redis.call('DEL', KEYS[1] .. 'result:' .. id)
  if not task.blob then
    return nil
  end
  redis.call('SREM', KEYS[1] .. 'blobs', task.blob)
  redis.call('HDEL', task_key(id), 'blob')
  return task.blob
end
-- Makes a tombstone of an ended task; gives the copy that nobody owns now.
local function forget(id, task)
  local blob = disown_result(id, task)
  local claim = task.fingerprint and KEYS[1] .. 'claim:' .. task.fingerprint
  if claim and redis.call('HGET', claim, 'task') == id then
    redis.call('DEL', claim)
  end
  if task.state ~= 'succeeded' then
    release_files(task)
  end
  for _, name in ipairs(cjson.decode(task.tags or '[]')) do
    redis.call('ZREM', KEYS[1] .. 'tag:' .. task.user .. ':' .. name, id)
  end
  redis.call('DEL', KEYS[1] .. 'ledger:' .. id, KEYS[1] .. 'body:' .. id)
  local buried_at = math.max(after(kept(task).key), keys_until(task) or now)
  redis.call('HDEL', task_key(id), 'fingerprint', 'files', 'tags', 'error', 'progress', 'result_kind', 'blob',
    'dedup_expires_at', 'result_until')
  redis.call('HSET', task_key(id), 'state', 'tombstone', 'kept_until', buried_at)
  moved(id, task, nil)
  expires(id, buried_at)
  return blob
end
