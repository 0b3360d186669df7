-- Who is told of a task's end: each callback by a task of its own, made in the step that ends the task. A hash beside
-- the record has by URL what the record of a delivery ends with, packed as in record.rs, but for its submission; the
-- first byte is its priority. The record says only that there are callbacks. An older release knows nothing of all
-- that: in `awaited` stand the tasks whose end is still to be told, for tell.lua to look after.
local CALLBACKS_MAX = 16
local function callbacks_key(id)
  return root .. 'callbacks:' .. id
end
-- How the task has ended, as domain/callback.rs reads it.
local function end_of(task)
  return '{"state":"' .. task.state .. string.format('","attempt":%.0f,"max_attempts":%.0f,"finished_at_ms":%.0f',
    task.attempt or 0, task.max_attempts or task.budget, task.finished_at)
    .. string.format(',"duplicates":%.0f,"started_at_ms":', task.duplicates or 0)
    .. (task.started_at and string.format('%.0f', task.started_at) or 'null')
    .. ',"progress":' .. (task.progress or 'null') .. ',"error":' .. (task.error or 'null') .. '}'
end
-- However full the queue is: what is acknowledged is told.
local function deliver(task, url, terms)
  -- The same however often the step is repeated.
  local made_of = string.format(' %.0f %.0f ', task.revision or 1, task.finished_at)
  local id = string.sub(task.id, 1, 4) .. string.sub(redis.sha1hex(task.id .. made_of .. url), 1, 32)
  local priority, user, type = cmsgpack.unpack(terms)
  local body = '{"params":{"url":' .. cjson.encode(url) .. ',"task_id":"' .. task.id .. '","end":' .. end_of(task)
    .. '},"tags":{"callback_of":"' .. task.id .. '"}}'
  local seq = redis.call('INCR', root .. 'seq')
  -- The first values of a record (record.lua), up to those that came packed.
  redis.call('SET', task_key(id), cmsgpack.pack(
    'queued', seq, priority, now, nil, now, nil, nil,
    nil, nil, nil, nil, nil, nil, nil,
    nil, nil, nil, nil, nil, nil, nil, nil) .. string.sub(terms, 2)
    .. cmsgpack.pack(#body <= SHORT and body or nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, task.ageing))
  if #body > SHORT then
    redis.call('SET', root .. 'body:' .. id, body)
  end
  redis.call('INCR', root .. 'open')
  redis.call('ZADD', list_key('queued', user), seq, id)
  redis.call('SADD', deliveries_key(user), id)
  redis.call('ZADD', root .. 'tag:' .. user .. ',callback_of', seq, id)
  gauge(user, type, '-', 'queued')
  changed(id)
  enqueue({
    id = id, seq = seq, user = user, type = type, priority = priority, ready_at = now, ageing = task.ageing,
  })
end
-- Tells all of an end that is being recorded; of a superseded one, those that found no room at the newer task.
local function tell_end(task)
  local callbacks = redis.call('HGETALL', callbacks_key(task.id))
  local by = task.superseded_by
  for i = 1, #callbacks, 2 do
    if not by or redis.call('HEXISTS', callbacks_key(by), callbacks[i]) == 0 then
      deliver(task, callbacks[i], callbacks[i + 1])
    end
  end
  redis.call('SREM', root .. 'awaited', task.id)
end
local function forget_callbacks(id)
  redis.call('DEL', callbacks_key(id))
  redis.call('SREM', root .. 'awaited', id)
end
