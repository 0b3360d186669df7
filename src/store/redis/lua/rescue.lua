#!lua flags=allow-oom
-- Does what time has made due, in one bounded step.
-- KEYS[1] root of the partition
-- ARGV[1] deadlines of each kind at most
-- ARGV[2] and ARGV[3]: the error of a lost last attempt, JSON, before and after the attempt's number
-- Replies: rescued, queued, users who have their turn again, leases expired, expired, more or done, next deadline in
--   ms or nothing,
--   counts that wait to be folded, ids of tasks whose records are gone or cannot be read with blanks between, then the copies
--   that nobody owns now
local max, error_head, error_tail = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local queued, resumed, leases_expired, expired = 0, 0, 0, 0
local disowned = {}

local function start_or_return(task)
  if task.behind then
    queued = queued + (look_behind(task) and 1 or 0)
    return
  end
  if task.state ~= 'running' then
    queued = queued + 1
    return requeue(task, task.due_at)
  end
  leases_expired = leases_expired + 1
  tally(task.user, 'leases_lost', 1)
  if task.attempt < (task.max_attempts or task.budget) then
    return requeue(task, task.ready_at or now)
  end
  give_up(task, 'failed', error_head .. task.attempt .. error_tail, false)
end

-- What a task whose record is gone or cannot be read has held is free: a concurrency key at once, all else when the user
-- is looked at again.
local function give_up_record(id)
  put_aside(id)
  local type, user, slot = string.match(redis.call('HGET', holders_key, id) or '', '^(%S+) (%S+) (%S+)$')
  if slot then
    free({ id = id, type = type, user = user, slot = slot })
  end
end

-- Takes some of the task's keys off the record; gives whether all are gone. The caller saves the task.
local function drop_keys(task)
  local names = redis.call('SPOP', root .. 'keys:' .. task.id, max)
  names[#names + 1] = task.key
  for _, name in ipairs(names) do
    local key = root .. 'key:' .. task.user .. ',' .. name
    local bound = redis.call('GET', key)
    if bound and cmsgpack.unpack(bound) == task.id then
      redis.call('DEL', key)
    end
  end
  if redis.call('EXISTS', root .. 'keys:' .. task.id) == 1 then
    return false
  end
  task.bound_at = nil
  return true
end

local function expire(task)
  expired = expired + 1
  local keys = keys_until(task)
  if keys and keys <= now and not drop_keys(task) then
    return
  end
  if task.kept_until <= now then
    if keys and keys > now then
      task.kept_until = keys
    elseif task.state == 'tombstone' then
      redis.call('DEL', task_key(task.id))
      redis.call('ZREM', root .. 'expiry', task.id)
      return
    else
      disowned[#disowned + 1] = forget(task)
      return
    end
  elseif task.result_kind and task.result_kind ~= 'expired' and result_until(task) <= now then
    disowned[#disowned + 1] = disown_result(task)
    task.result_kind = 'expired'
  end
  save(task)
  redis.call('ZADD', root .. 'expiry', next_expiry(task), task.id)
end

-- Users who were passed over for long enough.
local function resume(type)
  local turns, next_at = turns_key(type), nil
  for _, band in ipairs({ RATED, FULL }) do
    local from, ends = string.format('%.0f', band), string.format('(%.0f', band + FULL - RATED)
    local until_now = string.format('%.0f', band + now)
    for _, user in ipairs(redis.call('ZRANGE', turns, from, until_now, 'BYSCORE', 'LIMIT', 0, max)) do
      resumed = resumed + 1
      take_turns(turns, user)
    end
    local first = redis.call('ZRANGE', turns, from, ends, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
    if first then
      next_at = math.min(next_at or math.huge, first - band)
    end
  end
  if next_at then
    redis.call('ZADD', waits_key, next_at, type)
  else
    redis.call('ZREM', waits_key, type)
  end
end

-- The first deadline of each kind.
local first_at = {}
local function look_at(set)
  first_at[set] = tonumber(redis.call('ZRANGE', root .. set, 0, 0, 'WITHSCORES')[2])
end
local function head(set)
  look_at(set)
  if not first_at[set] or first_at[set] > now then
    return {}
  end
  return redis.call('ZRANGE', root .. set, '-inf', now, 'BYSCORE', 'LIMIT', 0, max)
end

local waiting, ending, files, types = head('due'), head('expiry'), head('file-expiry'), head('waits')
for _, type in ipairs(types) do
  resume(type)
end
for _, id in ipairs(waiting) do
  local task = load_if_whole(id)
  if task then
    start_or_return(task)
  else
    never_due(id)
    give_up_record(id)
  end
end
for _, id in ipairs(ending) do
  local task = load_if_whole(id)
  if not task then
    redis.call('ZREM', root .. 'expiry', id)
    give_up_record(id)
  elseif task.held then
    leases_expired = leases_expired + 1
    tally(task.user, 'leases_lost', 1)
    confirm_stopped(task)
  else
    expire(task)
  end
end
for _, member in ipairs(files) do
  local sha256, user = string.match(member, '^(%x+):(.*)$')
  local generation = redis.call('HGET', file_key(user, sha256), 'generation')
  if generation then
    redis.call('SREM', root .. 'blobs', sha256 .. '-' .. generation)
    disowned[#disowned + 1] = sha256 .. '-' .. generation
  end
  redis.call('DEL', file_key(user, sha256))
  redis.call('ZREM', root .. 'file-expiry', member)
end
local was_idle = #waiting + #ending + #files + #types == 0
local next_at = nil
for _, set in ipairs({ 'due', 'expiry', 'file-expiry', 'waits' }) do
  if not was_idle then
    look_at(set)
  end
  if first_at[set] then
    next_at = math.min(first_at[set], next_at or first_at[set])
  end
end
local more = #waiting == max or #ending == max or #files == max
return {
  'rescued', tostring(queued), tostring(resumed), tostring(leases_expired), tostring(expired), more and 'more' or 'done',
  next_at and string.format('%.0f', next_at) or '', tostring(redis.call('HLEN', root .. 'fresh')),
  table.concat(broken, ' '), unpack(disowned),
}
