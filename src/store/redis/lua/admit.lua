#!lua
-- Decides of submissions whether they are new, duplicates or refused, and records and enqueues them: each as if it
-- had come alone. What is plainly new goes first, all of it in one look and one write.
-- KEYS[1]  root of the partition: records that only the script can name begin with it
-- KEYS     then for each submission: record of the new task; record of the key, the root when there is none; claim
--          on the content, the root when it does not count
-- ARGV     for each submission:
--          the new task's id, which is the nonce
--          what its record ends with, packed: user, type, key or nil, fingerprint, its rule, whether the content
--          counts, window, attempts granted, retentions of key, result, task, failed task and file (all in ms),
--          names of tags as JSON or nil, submission as JSON, or nil when it is the next but one
--          what is asked, packed: whether it starts at once, without files, tags, callback or older versions; mode (domain/task_type.rs),
--          resubmissions at most, priority asked for or nil, priority otherwise, start (now, at or after), its time
--          or span in ms, unfinished tasks at most here, those of the user at most or nil, what a level of priority is
--          worth, ms, unless it is AGEING, concurrency key or nil, fingerprints of older versions that answer too, one
--          behind the other, or nil, another rule or nil, the fingerprint under it, hashes of
--          fields as JSON or nil, the callback's URL or nil, what its deliveries are made of (callbacks.lua) or nil,
--          what a conflict mode matches on, how long it waits for a newer one and how long at most, in ms
--          submission, JSON, or nothing
--          number of files, and for each: sha256, generation or nothing, size in bytes, name, media type
-- Replies, for each: new, now, files · again, record · newest, record, whether its callback found room (joins or full) · by-key, now, record, until or nothing, changes, what
--   became of a callback (joins, known or full) · by-content, the same · by-values, the same · rejected, record
--   · key-reused, rule, fields or nothing, record · key-forgotten · other-rule, rule · fields-wanted
--   · file-unknown, sha256 · queue-full · quota-exceeded · broken, why
gather_counts()
local replies, others = {}, {}

-- What nothing on record speaks of.
local seen = redis.call('MGET', root .. 'open', root .. 'seq', unpack(KEYS, 2))
local open, seq = tonumber(seen[1] or 0), tonumber(seen[2] or 0)
local writes, listed, queued, made = {}, {}, {}, {}
-- Keys and contents of this very step: what names one again comes after it.
local taken = {}
-- Unfinished tasks of users that have a quota, with those of this step.
local unfinished = {}
local function has_room(user, max)
  if not max then
    return true
  end
  unfinished[user] = unfinished[user] or unfinished_of(user) + #(listed[user] or {}) / 2
  return unfinished[user] < max
end
local function among(lists, name)
  local list = lists[name] or {}
  lists[name] = list
  return list
end
local at = 1
for k = 2, #KEYS, 3 do
  local number = #replies + 1
  local id, packed, text = ARGV[at], ARGV[at + 1], ARGV[at + 3]
  local record, key_record, claim = KEYS[k], KEYS[k + 1], KEYS[k + 2]
  local user, type = cmsgpack.unpack(packed)
  local is_plain, _, _, _, priority, _, _, open_max, user_max, ageing, slot = cmsgpack.unpack(ARGV[at + 2])
  if is_plain and not (seen[k + 1] or seen[k + 2] or seen[k + 3]) and open < open_max
    and not (taken[record] or taken[key_record] or taken[claim]) and has_room(user, user_max) then
    seq, open = seq + 1, open + 1
    unfinished[user] = unfinished[user] and unfinished[user] + 1
    local w = #writes
    -- The first values of a record (record.lua), up to those that came packed.
    writes[w + 1], writes[w + 2] = record, cmsgpack.pack(
      'queued', seq, priority, now, nil, now, nil, nil,
      nil, nil, nil, nil, nil, key_record ~= root and now or nil, nil,
      nil, nil, nil, nil, nil, nil, nil, nil) .. packed
      .. ((slot or ageing) and cmsgpack.pack(nil, nil, nil, nil, nil, nil, nil, nil, nil, slot, ageing) or '')
    w = w + 2
    if text ~= '' then
      writes[w + 1], writes[w + 2] = root .. 'body:' .. id, text
      w = w + 2
    end
    -- All else that the key remembers is in the record of the task that it made.
    if key_record ~= root then
      writes[w + 1], writes[w + 2] = key_record, cmsgpack.pack(id)
      w = w + 2
    end
    if claim ~= root then
      writes[w + 1], writes[w + 2] = claim, cmsgpack.pack(id, nil, nil)
    end
    local list = among(listed, user)
    list[#list + 1], list[#list + 2] = seq, id
    made[#made + 1] = id
    local line = among(among(queued, type), user)
    line[#line + 1], line[#line + 2] = score(priority, now, ageing), place(seq, id, slot)
    tally_accepted(user, type, 'queued')
    replies[number] = { 'new', now, '' }
  else
    others[#others + 1] = { number, k, at }
    replies[number] = false
  end
  taken[record] = true
  taken[key_record] = key_record ~= root
  taken[claim] = claim ~= root
  at = at + 5 + 5 * ARGV[at + 4]
end
if #writes > 0 then
  promised = true
  local w = #writes
  writes[w + 1], writes[w + 2], writes[w + 3], writes[w + 4] = root .. 'open', open, root .. 'seq', seq
  redis.call('MSET', unpack(writes))
  for user, list in pairs(listed) do
    redis.call('ZADD', list_key('queued', user), unpack(list))
  end
  for type, lines in pairs(queued) do
    for user, line in pairs(lines) do
      enqueue_all(type, user, line)
    end
  end
  publish('task ' .. table.concat(made, ' '))
end
if #others == 0 then
  write_counts()
  return replies
end

-- The other parts come here.
-- How often a task was forgotten here.
local function changes()
  return redis.call('GET', root .. 'changes') or '0'
end

-- What a new task of a conflict mode meets: who gives way to it; whether it waits behind another; since when its chain
-- of debounced tasks waits.
local function conflicts()
  local giving_way, is_behind, chained_at = {}, false, now
  if mode == 'throttle' then
    return giving_way, nil, nil
  end
  for _, task in ipairs(matched(matching)) do
    local waits = task.state == 'scheduled' or task.state == 'queued' or task.state == 'retrying'
    local has_begun = (task.attempt or 0) > 0
    if waits and not (mode == 'keep_last' and has_begun) then
      giving_way[#giving_way + 1] = task
      if not has_begun then
        chained_at = math.min(chained_at, task.chained_at or task.created_at)
      end
    elseif mode == 'keep_last' and may_run(task) then
      is_behind = true
    end
  end
  return giving_way, is_behind or nil, mode == 'debounce' and chained_at or nil
end

-- When a debounced task starts whose chain waits since then.
local function debounced(chained_at)
  return math.max(now, math.min(after(debounce_ms), chained_at + debounce_max_ms))
end

-- The callbacks of tasks that give way come to this one, then its own; says whether that found room. They stay with
-- their tasks, too, so that a replay adds none of them again.
local function take_callbacks(giving_way)
  local key, room = callbacks_key(id), CALLBACKS_MAX
  for _, task in ipairs(giving_way) do
    local moved = task.callbacks and redis.call('HGETALL', callbacks_key(task.id)) or {}
    for i = 1, #moved, 2 do
      if room > 0 then
        room = room - redis.call('HSETNX', key, moved[i], moved[i + 1])
      end
    end
  end
  if not callback or redis.call('HEXISTS', key, callback) == 1 then
    return 'joins'
  elseif room == 0 then
    return 'full'
  end
  redis.call('HSET', key, callback, callback_terms)
  return 'joins'
end

-- Ends as cancelled what the new task takes the place of.
local function supersede(giving_way)
  for _, task in ipairs(giving_way) do
    task.superseded_by = id
    leave_matching(task)
    give_up(task, 'cancelled', nil, false)
  end
end

local function create(packed, resubmissions, first_failed_at)
  if redis.call('EXISTS', task_record) == 1 then
    return { 'again', shown(load(id)) }
  end
  local giving_way, is_behind, chained_at = {}, nil, nil
  if matching then
    giving_way, is_behind, chained_at = conflicts()
  end
  if tonumber(redis.call('GET', root .. 'open') or 0) - #giving_way >= open_max then
    return { 'queue-full' }
  end
  if user_max and unfinished_of(user) - #giving_way >= user_max then
    return { 'quota-exceeded' }
  end
  local unknown = unknown_file()
  if unknown then
    return { 'file-unknown', unknown }
  end
  local starts_at = start == 'at' and start_ms or start == 'after' and after(start_ms) or nil
  starts_at = chained_at and debounced(chained_at) or starts_at
  local files = {}
  for i = files_from, files_to, FILE_PARTS do
    local generation, size =
      adopt(user, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], after(file_kept))
    files[#files + 1] = ARGV[i] .. ':' .. generation .. ':' .. size
  end
  for i = files_from, files_to, FILE_PARTS do
    refer(user, ARGV[i])
  end
  files = #files > 0 and table.concat(files, ' ') or nil
  local due_at = is_behind and after(LOOK_BEHIND) or starts_at and starts_at > now and starts_at or nil
  local state = due_at and 'scheduled' or 'queued'
  local seq = redis.call('INCR', root .. 'seq')
  -- The highest priority wins.
  local priority = priority
  for _, task in ipairs(giving_way) do
    priority = math.min(priority, task.priority)
  end
  local own_callback = take_callbacks(giving_way)
  local has_callbacks = (callback or matching) and redis.call('EXISTS', callbacks_key(id)) == 1 or nil
  -- The first values of a record (record.lua), up to those that came packed.
  redis.call('SET', task_record, cmsgpack.pack(
    state, seq, priority, now, starts_at, not due_at and now or nil, due_at, nil,
    nil, nil, nil, nil, nil, key and now or nil, nil,
    nil, nil, nil, nil, nil, nil, nil, files) .. packed
    .. ((has_callbacks or matching or slot or ageing) and cmsgpack.pack(
      nil, nil, has_callbacks, matching, mode == 'throttle' or nil, chained_at, is_behind, nil, nil, slot, ageing) or ''))
  if has_callbacks then
    redis.call('SADD', root .. 'awaited', id)
  end
  if text ~= '' then
    redis.call('SET', root .. 'body:' .. id, text)
  end
  redis.call('INCR', root .. 'open')
  if mode ~= 'none' then
    write_claim(fingerprint, id, resubmissions, first_failed_at)
  end
  -- All else that the key remembers is in the record of the task that it made.
  if key then
    redis.call('SET', key_record, cmsgpack.pack(id))
  end
  redis.call('ZADD', list_key(state, user), seq, id)
  if tags then
    for _, name in ipairs(cjson.decode(tags)) do
      redis.call('ZADD', root .. 'tag:' .. user .. ',' .. name, seq, id)
    end
  end
  tally_accepted(user, type, state)
  changed(id)
  if due_at then
    due(id, due_at)
  else
    enqueue({
      id = id, seq = seq, user = user, type = type, priority = priority, ready_at = now, ageing = ageing, slot = slot,
    })
  end
  if matching then
    -- Of tasks that are over, the newest alone stays.
    for _, task in ipairs(matched(matching)) do
      if not may_run(task) then
        leave_matching(task)
      end
    end
    redis.call('ZADD', matching_key(matching), seq, id)
    supersede(giving_way)
    return { 'newest', shown(load(id)), own_callback }
  end
  return { 'new', now, files or '' }
end

-- The earliest start and the highest priority win. is_replay: what was submitted before puts nothing off.
local function apply(task, is_replay)
  local starts_at = start == 'at' and start_ms or start == 'after' and after(start_ms)
    or mode == 'debounce' and after(debounce_ms) or nil
  local waits = task.state == 'scheduled' or task.state == 'queued' or task.state == 'retrying'
  if priority_asked and waits and priority_asked < task.priority then
    task.priority = priority_asked
    save(task)
    if task.state == 'queued' then
      move_up(task)
    end
  end
  if mode == 'debounce' and task.chained_at then
    -- The same content once more waits anew.
    if task.state == 'scheduled' and not is_replay then
      starts_at = debounced(task.chained_at)
      if starts_at > now then
        task.due_at, task.scheduled_at = starts_at, starts_at
        save(task)
        due(task.id, starts_at)
        changed(task.id)
      else
        requeue(task, now)
      end
    end
  elseif task.state == 'scheduled' and not task.behind and (starts_at or now) < task.due_at then
    if starts_at and starts_at > now then
      task.due_at = starts_at
      save(task)
      due(task.id, starts_at)
    else
      requeue(task, now)
    end
  end
end

-- Adds the callback of a duplicate, which is told at once where the task has ended.
local function join_callback(task)
  local key = callbacks_key(task.id)
  if redis.call('HEXISTS', key, callback) == 1 then
    return 'known'
  elseif redis.call('HLEN', key) >= CALLBACKS_MAX then
    return 'full'
  end
  redis.call('HSET', key, callback, callback_terms)
  if not task.callbacks then
    task.callbacks = true
    save(task)
  end
  if is_ended(task) then
    deliver(task, callback, callback_terms)
  else
    redis.call('SADD', root .. 'awaited', task.id)
  end
  return 'joins'
end

-- Binds one more key to a task; gives until when it is kept.
local function bind_also(task)
  if rule == task.rule and fingerprint == task.fingerprint then
    redis.call('SET', key_record, cmsgpack.pack(task.id, now))
  else
    redis.call('SET', key_record, cmsgpack.pack(task.id, now, fingerprint, rule, fields))
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

local function answer(packed)
  -- The step once more, after its outcome was unknown: another one may have taken the task's place since.
  if matching and redis.call('EXISTS', task_record) == 1 then
    return { 'again', shown(load(id)) }
  end
  local word, found, detail, more = judge()
  if word == 'new' then
    return create(packed, found, detail)
  elseif (word == 'by-key' or word == 'by-content') and found.id == id then
    return { 'again', shown(found) }
  elseif word == 'by-key' then
    apply(found, true)
    local joined = callback and join_callback(found)
    return { 'by-key', now, shown(found), detail or '', changes(), joined or nil }, joined or not is_ended(found)
  elseif word == 'by-content' and mode == 'reject' then
    return { 'rejected', shown(found) }
  elseif word == 'by-content' or word == 'by-values' then
    -- While a cancelled attempt has not confirmed yet that it stopped, the key stays free for the work anew.
    local binds = key and found.state ~= 'cancelled'
    if binds and (rule ~= found.rule or fingerprint ~= found.fingerprint) and not fields then
      return { 'fields-wanted' }
    end
    apply(found)
    if not key and found.key and not found.keyless and not is_ended(found) then
      found.keyless = true
      save(found)
    end
    local joined = callback and join_callback(found)
    local ends = binds and bind_also(found) or ''
    return { word, now, shown(found), ends, changes(), joined or nil }, key or joined or not is_ended(found)
  elseif word == 'key-reused' then
    tally(user, 'key_reused', 1)
    return { word, detail, more or '', shown(found) }
  end
  return { word, found }
end
for _, other in ipairs(others) do
  local number, in_keys, in_argv = unpack(other)
  turn_to(in_keys, in_argv)
  -- A record that cannot be read harms no other submission.
  local is_well, reply, promises = pcall(answer, ARGV[in_argv + 1])
  if is_well then
    -- Whoever names a task that has not ended promises it, as if it had made it.
    promised = promised or promises or reply[1] == 'new' or reply[1] == 'newest' or reply[1] == 'again'
    replies[number] = reply
  else
    replies[number] = { 'broken', reply.err or tostring(reply) }
  end
end
write_counts()
return replies
