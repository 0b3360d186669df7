#!lua
-- Decides whether a submission is new, a duplicate or refused, and records and enqueues it.
-- KEYS[1]  root of the partition: records that only the script can name begin with it
-- KEYS[2]  record of the new task
-- KEYS[3]  record of the key; the root when there is none
-- ARGV[1]  the new task's id, which is the nonce     ARGV[2]  user
-- ARGV[3]  type                                      ARGV[4]  mode: return, reject or none
-- ARGV[5]  fingerprint, hex                          ARGV[6]  its rule, JSON
-- ARGV[7]  hashes of fields, JSON                    ARGV[8]  key, or nothing
-- ARGV[9]  resubmissions at most                     ARGV[10] priority asked for, or nothing
-- ARGV[11] priority otherwise                        ARGV[12] start: now, at or after
-- ARGV[13] its time or span, ms                      ARGV[14] unfinished tasks at most, here
-- ARGV[15] what is kept how long (record.lua)        ARGV[16] submission, JSON
-- ARGV[17] another rule, or nothing                  ARGV[18] the fingerprint under it
-- ARGV[19] names of tags, JSON, or nothing
-- ARGV[20…] for each file: sha256, generation or nothing, size in bytes, name, media type
-- Replies: new, now, files · again, record · by-key, now, record, until or nothing
--   · by-content, now, record, until or nothing · rejected, record
--   · key-reused, rule, fields · key-forgotten · other-rule, rule · file-unknown, sha256 · queue-full
local id, type, fields = ARGV[1], ARGV[3], ARGV[7]
local priority_asked, priority = ARGV[10], ARGV[11]
local start, start_ms, open_max = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14])
local keep, body, tags = ARGV[15], ARGV[16], ARGV[19]
local starts_at = start == 'at' and start_ms or start == 'after' and after(start_ms) or nil

local function bind(task, bound_at)
  redis.call('HSET', KEYS[3], 'task', task.id, 'fingerprint', fingerprint, 'rule', rule, 'fields', fields,
    'bound_at', bound_at)
end

local function start_sooner(task)
  if starts_at and starts_at > now then
    redis.call('HSET', task_key(task.id), 'due_at', starts_at)
    due(task.id, starts_at)
  else
    requeue(task.id, task, now)
  end
end

-- The earliest start and the highest priority win.
local function apply(task)
  local waits = task.state == 'scheduled' or task.state == 'queued' or task.state == 'retrying'
  if priority_asked ~= '' and waits and tonumber(priority_asked) < tonumber(task.priority) then
    task.priority = priority_asked
    redis.call('HSET', task_key(task.id), 'priority', priority_asked)
    if task.state == 'queued' then
      enqueue(task.id, task, task.ready_at)
    end
  end
  if task.state == 'scheduled' and (starts_at or now) < tonumber(task.due_at) then
    start_sooner(task)
  end
end

-- Binds one more key to a task; gives until when it is kept.
local function bind_also(task)
  bind(task, now)
  redis.call('SADD', root .. 'keys:' .. task.id, key)
  redis.call('HSET', task_key(task.id), 'bound_at', now)
  local ends = key_until(task, now)
  if not ends then
    return ''
  end
  if task.result_until and tonumber(task.result_until) < ends then
    redis.call('HSET', task_key(task.id), 'result_until', ends,
      'kept_until', math.max(ends, tonumber(task.kept_until)))
  end
  keep_files_until(task, ends)
  return string.format('%.0f', ends)
end

local function create(resubmissions, first_failed_at)
  if redis.call('EXISTS', KEYS[2]) == 1 then
    return { 'again', shown(id) }
  end
  local open = tonumber(redis.call('GET', root .. 'open') or 0)
  if open >= open_max then
    return { 'queue-full' }
  end
  local unknown = unknown_file()
  if unknown then
    return { 'file-unknown', unknown }
  end
  local waits = starts_at and starts_at > now
  local state = waits and 'scheduled' or 'queued'
  local seq = redis.call('INCR', root .. 'seq')
  local record = { 'seq', seq, 'user', user, 'type', type, 'state', state, 'priority', priority,
    'created_at', now, 'keep', keep }
  local function also(name, value)
    record[#record + 1] = name
    record[#record + 1] = value
  end
  if mode ~= 'none' then
    also('fingerprint', fingerprint)
  end
  if starts_at then
    also('scheduled_at', starts_at)
  end
  if key ~= '' then
    also('key', key)
    also('bound_at', now)
  end
  if tags ~= '' then
    also('tags', tags)
    for _, name in ipairs(cjson.decode(tags)) do
      redis.call('ZADD', root .. 'tag:' .. user .. ':' .. name, seq, id)
    end
  end
  local files = {}
  for i = FILES_FROM, #ARGV, 5 do
    local retention = tonumber(string.match(keep, '%d+$'))
    local generation, size =
      adopt(user, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], after(retention))
    files[#files + 1] = ARGV[i] .. ':' .. generation .. ':' .. size
  end
  for i = FILES_FROM, #ARGV, 5 do
    refer(user, ARGV[i])
  end
  if #files > 0 then
    also('files', table.concat(files, ' '))
  end
  also(waits and 'due_at' or 'ready_at', waits and starts_at or now)
  redis.call('HSET', KEYS[2], unpack(record))
  redis.call('SET', root .. 'body:' .. id, body)
  redis.call('INCR', root .. 'open')
  if mode ~= 'none' then
    local claim = root .. 'claim:' .. fingerprint
    redis.call('HSET', claim, 'task', id)
    if first_failed_at then
      redis.call('HSET', claim, 'resubmissions', resubmissions, 'first_failed_at', first_failed_at)
    elseif resubmissions == 0 then
      redis.call('HDEL', claim, 'resubmissions', 'first_failed_at')
    end
  end
  local task = { id = id, seq = seq, type = type, priority = priority }
  if key ~= '' then
    bind(task, now)
  end
  redis.call('ZADD', list_key(state, user), seq, id)
  gauge(user, type, state, 1)
  tally(user, 'accepted', 1)
  if waits then
    due(id, starts_at)
  else
    enqueue(id, task, now)
  end
  return { 'new', tostring(now), table.concat(files, ' ') }
end

local word, found, detail = judge()
if (word == 'by-key' or word == 'by-content') and found.id == id then
  return { 'again', shown(id) }
elseif word == 'by-key' then
  apply(found)
  return { 'by-key', tostring(now), shown(found.id), detail and string.format('%.0f', detail) or '' }
elseif word == 'by-content' and mode == 'reject' then
  return { 'rejected', shown(found.id) }
elseif word == 'by-content' then
  apply(found)
  -- While a cancelled attempt has not confirmed yet that it stopped, the key stays free for the work anew.
  local ends = key ~= '' and found.state ~= 'cancelled' and bind_also(found) or ''
  return { 'by-content', tostring(now), shown(found.id), ends }
elseif word == 'key-reused' then
  tally(user, 'key_reused', 1)
  return { word, found, detail }
elseif word == 'new' then
  return create(found, detail)
end
return { word, found }
