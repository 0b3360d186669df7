-- A task's record: a hash of short values, its submission and its result beside it.
local root = KEYS[1]
local function task_key(id)
  return root .. 'task:' .. id
end
-- The record as a table with its id, or nil.
local function load(id)
  local flat = redis.call('HGETALL', task_key(id))
  if #flat == 0 then
    return nil
  end
  local task = { id = id }
  for i = 1, #flat, 2 do
    task[flat[i]] = flat[i + 1]
  end
  return task
end
-- The record as a reply: id, fields, submission, result.
local function shown(id)
  return {
    id,
    redis.call('HGETALL', task_key(id)),
    redis.call('GET', root .. 'body:' .. id),
    redis.call('GET', root .. 'result:' .. id),
  }
end
local function is_ended(task)
  return task.state == 'succeeded' or task.state == 'failed' or task.state == 'cancelled' or task.state == 'tombstone'
end
-- What is kept how long, in ms: window, then the attempts granted, then retentions.
local function kept(task)
  local window, budget, key, result, whole, failed, file =
    string.match(task.keep, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  return {
    window = tonumber(window), budget = tonumber(budget), key = tonumber(key), result = tonumber(result),
    task = tonumber(whole), failed = tonumber(failed), file = tonumber(file),
  }
end
-- Until when a key is kept that was bound then; nil while the task is unfinished.
local function key_until(task, bound_at)
  if not is_ended(task) then
    return nil
  end
  return math.min(math.max(tonumber(task.finished_at), tonumber(bound_at)) + kept(task).key, LAST)
end
-- Until when the newest of the task's keys is kept; nil when it has none.
local function keys_until(task)
  return task.bound_at and key_until(task, task.bound_at)
end
