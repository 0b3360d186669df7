-- A task's record: one packed string, so that one command reads it and one writes it. A submission or a result
-- that is longer than SHORT bytes lies beside it, so that no step copies it.
local SHORT = 512
local function task_key(id)
  return root .. 'task:' .. id
end
-- The record as a table with its id, or nil. record.rs reads the same values in the same order; those from
-- `user` on are written by whoever submits, and packed there (ARGV[2] of admit.lua); the two after them come with
-- the first change, then whether there are callbacks, and what the conflict modes need (matching.lua): what the
-- task matches on, whether it throttles, since when its chain of debounced tasks waits, whether it waits behind
-- another, which task has taken its place; and whether submissions without a key have joined it. The last are the
-- concurrency key, and what a level of priority is worth, ms, unless that is AGEING.
local function load(id)
  local packed = redis.call('GET', task_key(id))
  if not packed then
    return nil
  end
  local state, seq, priority, created_at, scheduled_at, ready_at, due_at, held, attempt, token, started_at, lease_nonce,
    finished_at, bound_at, max_attempts, kept_until, result_kind, result, blob, progress, error, duplicates, files,
    user, type, key, fingerprint, rule, is_content, window, budget, key_kept, result_kept, task_kept, failed_kept,
    file_kept, tags, body, revision, trail, callbacks, matching, throttles, chained_at, behind, superseded_by,
    keyless, slot, ageing = cmsgpack.unpack(packed)
  -- A record that was cut may still be readable up to there.
  if not (user and type and file_kept) then
    error('the record of ' .. id .. ' is not whole')
  end
  -- Made in one piece, which costs half of what it costs to let it grow.
  return {
    id = id, packed = packed, state = state, seq = seq, priority = priority, created_at = created_at,
    scheduled_at = scheduled_at, ready_at = ready_at, due_at = due_at, held = held, attempt = attempt, token = token,
    started_at = started_at, lease_nonce = lease_nonce, finished_at = finished_at, bound_at = bound_at,
    max_attempts = max_attempts, kept_until = kept_until, result_kind = result_kind, result = result, blob = blob,
    progress = progress, error = error, duplicates = duplicates, files = files, user = user, type = type, key = key,
    fingerprint = fingerprint, rule = rule, is_content = is_content, window = window, budget = budget,
    key_kept = key_kept, result_kept = result_kept, task_kept = task_kept, failed_kept = failed_kept,
    file_kept = file_kept, tags = tags, body = body, revision = revision, trail = trail, callbacks = callbacks,
    matching = matching, throttles = throttles, chained_at = chained_at, behind = behind,
    superseded_by = superseded_by, keyless = keyless,
    slot = slot, ageing = ageing,
  }
end
-- As load; false when there is a record that cannot be read. What comes upon one puts it aside, for `broken` to name.
local function load_if_whole(id)
  local is_whole, task = pcall(load, id)
  return is_whole and task
end
local broken = {}
local function put_aside(id)
  redis.call('SADD', root .. 'broken', id)
  broken[#broken + 1] = id
end
local function save(task)
  local packed = cmsgpack.pack(
    task.state, task.seq, task.priority, task.created_at, task.scheduled_at, task.ready_at, task.due_at, task.held,
    task.attempt, task.token, task.started_at, task.lease_nonce, task.finished_at, task.bound_at, task.max_attempts,
    task.kept_until, task.result_kind, task.result, task.blob, task.progress, task.error, task.duplicates, task.files,
    task.user, task.type, task.key, task.fingerprint, task.rule, task.is_content, task.window, task.budget,
    task.key_kept, task.result_kept, task.task_kept, task.failed_kept, task.file_kept, task.tags, task.body,
    task.revision, task.trail, task.callbacks, task.matching, task.throttles, task.chained_at, task.behind,
    task.superseded_by, task.keyless, task.slot, task.ageing)
  task.packed = packed
  redis.call('SET', task_key(task.id), packed)
end
-- Keys of the task whose clients have withdrawn.
local function withdrawn_key(id)
  return root .. 'withdrawn:' .. id
end
-- The record as a reply: id, packed values, and the submission and the result if they lie beside it, or nothing.
local function shown(task)
  return {
    task.id,
    task.packed,
    task.body and '' or redis.call('GET', root .. 'body:' .. task.id),
    task.result_kind and not task.result and redis.call('GET', root .. 'result:' .. task.id) or '',
  }
end
local function is_ended(task)
  local state = task.state
  return state == 'succeeded' or state == 'failed' or state == 'cancelled' or state == 'tombstone'
end
-- Until when a key is kept that was bound then; nil while the task is unfinished.
local function key_until(task, bound_at)
  if not is_ended(task) then
    return nil
  end
  return math.min(math.max(task.finished_at, bound_at) + task.key_kept, LAST)
end
-- Until when the newest of the task's keys is kept; nil when it has none.
local function keys_until(task)
  return task.bound_at and key_until(task, task.bound_at)
end
-- Until when a success answers for its content.
local function answers_until(task)
  return math.min((task.throttles and task.created_at or task.finished_at) + task.window, LAST)
end
-- Until when the result is kept: as long as anything may answer with it.
local function result_until(task)
  local own = math.min(task.finished_at + math.max(task.result_kept, task.key_kept, task.window), LAST)
  return math.max(own, keys_until(task) or 0)
end
