#!lua
-- Decides whether a submission is new, a duplicate or refused, and records and enqueues it.
-- KEYS[1]  root of the partition: records that only the script can name begin with it
-- KEYS[2]  record of the new task
-- KEYS[3]  record of the key; the root when there is none
-- ARGV[1]  the new task's id, which is the nonce
-- ARGV[2]  what its record ends with, packed: user, type, key or nil, fingerprint, its rule, whether the content
--          counts, window, attempts granted, retentions of key, result, task, failed task and file (all in ms),
--          names of tags as JSON or nil, submission as JSON, or nil when it is ARGV[4]
-- ARGV[3]  what is asked, packed: mode (return, reject or none), resubmissions at most, priority asked for or nil,
--          priority otherwise, start (now, at or after), its time or span in ms, unfinished tasks at most here,
--          another rule or nil, the fingerprint under it, hashes of fields as JSON or nil
-- ARGV[4]  submission, JSON, or nothing
-- ARGV[5…] for each file: sha256, generation or nothing, size in bytes, name, media type
-- Replies: new, now, files · again, record · by-key, now, record, until or nothing, changes
--   · by-content, now, record, until or nothing, changes · rejected, record
--   · key-reused, rule, fields or nothing, record · key-forgotten · other-rule, rule · fields-wanted
--   · file-unknown, sha256 · queue-full
local starts_at = start == 'at' and start_ms or start == 'after' and after(start_ms) or nil
local word, found, detail, more = judge()
-- How often a task was forgotten here.
local function changes()
  return redis.call('GET', root .. 'changes') or '0'
end

-- Whoever names a task that has not ended promises it, as if it had made it.
promised = (word == 'by-key' or word == 'by-content') and not is_ended(found)

-- The usual duplicate: nothing of the task is waiting, or nothing is asked of what waits.
if word == 'by-key' and found.id ~= id and (is_ended(found) or not priority_asked and found.state ~= 'scheduled') then
  return { word, now, shown(found), detail or '', changes() }
end

-- The other parts come here.
if word == 'new' then
  if redis.call('EXISTS', KEYS[2]) == 1 then
    return { 'again', shown(load(id)) }
  end
  if tonumber(redis.call('GET', root .. 'open') or 0) >= open_max then
    return { 'queue-full' }
  end
  local unknown = unknown_file()
  if unknown then
    return { 'file-unknown', unknown }
  end
  local files = {}
  for i = FILES_FROM, #ARGV, 5 do
    local generation, size =
      adopt(user, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], after(file_kept))
    files[#files + 1] = ARGV[i] .. ':' .. generation .. ':' .. size
  end
  for i = FILES_FROM, #ARGV, 5 do
    refer(user, ARGV[i])
  end
  files = #files > 0 and table.concat(files, ' ') or nil
  local waits = starts_at and starts_at > now
  local state = waits and 'scheduled' or 'queued'
  local seq = redis.call('INCR', root .. 'seq')
  -- The first values of a record (record.lua), up to those that came packed.
  redis.call('SET', KEYS[2], cmsgpack.pack(
    state, seq, priority, now, starts_at, not waits and now or nil, waits and starts_at or nil, nil,
    nil, nil, nil, nil, nil, key and now or nil, nil,
    nil, nil, nil, nil, nil, nil, nil, files) .. ARGV[2])
  if ARGV[4] ~= '' then
    redis.call('SET', root .. 'body:' .. id, ARGV[4])
  end
  redis.call('INCR', root .. 'open')
  if mode ~= 'none' then
    write_claim(fingerprint, id, found, detail)
  end
  -- All else that the key remembers is in the record of the task that it made.
  if key then
    redis.call('SET', KEYS[3], cmsgpack.pack(id))
  end
  redis.call('ZADD', list_key(state, user), seq, id)
  if tags then
    for _, name in ipairs(cjson.decode(tags)) do
      redis.call('ZADD', root .. 'tag:' .. user .. ',' .. name, seq, id)
    end
  end
  tally_accepted(user, type, state)
  if waits then
    due(id, starts_at)
  else
    enqueue({ id = id, seq = seq, type = type, priority = priority, ready_at = now })
  end
  return { 'new', now, files or '' }
end

-- The earliest start and the highest priority win.
local function apply(task)
  local waits = task.state == 'scheduled' or task.state == 'queued' or task.state == 'retrying'
  if priority_asked and waits and priority_asked < task.priority then
    task.priority = priority_asked
    save(task)
    if task.state == 'queued' then
      enqueue(task)
    end
  end
  if task.state == 'scheduled' and (starts_at or now) < task.due_at then
    if starts_at and starts_at > now then
      task.due_at = starts_at
      save(task)
      due(task.id, starts_at)
    else
      requeue(task, now)
    end
  end
end

-- Binds one more key to a task; gives until when it is kept.
local function bind_also(task)
  if rule == task.rule then
    redis.call('SET', KEYS[3], cmsgpack.pack(task.id, now))
  else
    redis.call('SET', KEYS[3], cmsgpack.pack(task.id, now, fingerprint, rule, fields))
  end
  redis.call('SADD', root .. 'keys:' .. task.id, key)
  task.bound_at = now
  local ends = key_until(task, now)
  if ends and task.result_kind then
    task.kept_until = math.max(ends, task.kept_until)
  end
  save(task)
  if not ends then
    return ''
  end
  keep_files_until(task, ends)
  return ends
end

if (word == 'by-key' or word == 'by-content') and found.id == id then
  return { 'again', shown(found) }
elseif word == 'by-key' then
  apply(found)
  return { 'by-key', now, shown(found), detail or '', changes() }
elseif word == 'by-content' and mode == 'reject' then
  return { 'rejected', shown(found) }
elseif word == 'by-content' then
  -- While a cancelled attempt has not confirmed yet that it stopped, the key stays free for the work anew.
  local binds = key and found.state ~= 'cancelled'
  if binds and rule ~= found.rule and not fields then
    return { 'fields-wanted' }
  end
  apply(found)
  local ends = binds and bind_also(found) or ''
  return { 'by-content', now, shown(found), ends, changes() }
elseif word == 'key-reused' then
  tally(user, 'key_reused', 1)
  return { word, detail, more or '', shown(found) }
end
return { word, found }
