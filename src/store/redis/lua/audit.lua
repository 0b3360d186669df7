#!lua flags=no-writes
-- Looks at records: whether what each needs is there, and whether what it names exists and agrees.
-- KEYS[1]  root of the partition
-- ARGV[1…] names of records, without the root
-- Replies: audited, what is wrong (a line each), copies that are named [name, size, …],
--   files that are needed [sha256:user, …], files with their needs [sha256:user, tasks, …]
local faults, copies, needed, files = {}, {}, {}, {}
local subject = nil
local function wrong(why)
  faults[#faults + 1] = subject .. ': ' .. why
end
local function exists(name)
  return redis.call('EXISTS', root .. name) == 1
end
local function score_of(set, member)
  return tonumber(redis.call('ZSCORE', root .. set, member))
end
-- The task if it is there, and was not forgotten.
local function whole(id)
  local task = load(id)
  return task and task.state ~= 'tombstone' and task
end
local newest = tonumber(redis.call('GET', root .. 'seq') or 0)
local WAITS = { scheduled = true, retrying = true, running = true }

local function place_of(task)
  if task.state == 'queued' then
    local member = place(task.seq, task.id, task.slot)
    local at = redis.call('ZSCORE', line_key(task.type, task.user), member)
    local aside = task.slot and redis.call('ZSCORE', aside_key(task.type, task.user, task.slot), member)
    if not task.ready_at or tonumber(at or aside or -1) ~= score(task.priority, task.ready_at, task.ageing) then
      wrong('it is queued, and has no place in the queue')
    elseif at and aside then
      wrong('it is queued, and has two places in the queue')
    elseif at and not redis.call('ZSCORE', turns_key(task.type), task.user) then
      wrong('it is queued, and its user has no turn')
    end
  elseif WAITS[task.state] then
    if not task.due_at or score_of('due', task.id) ~= task.due_at then
      wrong('it is ' .. task.state .. ', and has no deadline')
    end
    if task.state == 'running' and not (task.held and task.token and task.started_at) then
      wrong('it is running without a lease')
    end
  elseif not is_ended(task) then
    wrong('it is in no known state')
  elseif not task.finished_at or not task.kept_until or not score_of('expiry', task.id) then
    wrong('it has ended, and nothing says when it expires')
  end
end

-- The task is the one that answers for its content.
local function content_of(task)
  local answers = not is_ended(task) or task.state == 'cancelled' and task.held
    or task.state == 'succeeded' and now < answers_until(task)
  if task.is_content and answers and read_claim(task.fingerprint) ~= task.id then
    wrong('its content is not claimed for it')
  end
end

-- Its own key. A redrive finds the keys gone whose retention was over by then; no key is gone before.
local function key_of(task)
  local is_kept = task.bound_at and (task.bound_at == task.created_at or now < task.created_at + task.key_kept)
    and (not is_ended(task) or now < key_until(task, task.created_at))
  if not task.key or not is_kept then
    return
  end
  local bound = redis.call('GET', root .. 'key:' .. task.user .. ',' .. task.key)
  local id = bound and cmsgpack.unpack(bound)
  if not id then
    return wrong('the key that it was submitted with is gone')
  end
  -- Whoever comes after the retention may use the key for something else.
  local other = id ~= task.id and load(id)
  if other and other.created_at < task.created_at + task.key_kept then
    wrong('the key that it was submitted with names another task')
  end
end

local function result_of(task)
  if task.state ~= 'succeeded' then
    return task.result_kind and wrong('it has a result, and has not succeeded')
  elseif task.result_kind == 'expired' then
    return
  end
  local result = task.result or redis.call('GET', root .. 'result:' .. task.id)
  if not task.result_kind or not result then
    wrong('it has succeeded, and has no result')
  elseif task.blob then
    copies[#copies + 1] = task.blob
    copies[#copies + 1] = string.match(result, '"size":(%d+)') or ''
    if redis.call('SISMEMBER', root .. 'blobs', task.blob) == 0 then
      wrong('nobody owns the copy that holds its result')
    end
  end
end

local function files_of(task)
  if task.state == 'succeeded' then
    return
  end
  for sha256, generation, size in string.gmatch(task.files or '', '(%x+):(%x+):(%d+)') do
    local file = redis.call('HMGET', file_key(task.user, sha256), 'generation', 'size')
    if file[1] ~= generation or file[2] ~= size then
      wrong('it may run, and its file ' .. sha256 .. ' is not on record')
    end
    needed[#needed + 1] = sha256 .. ':' .. task.user
  end
end

local look = {}
function look.task(id)
  subject = 'task ' .. id
  local task = load(id)
  if not task or not task.user then
    return
  end
  if task.seq > newest then
    wrong('its number is beyond the counter of tasks')
  end
  place_of(task)
  key_of(task)
  if task.held and redis.call('HGET', held_key(task.type, task.user), task.slot or id) ~= id then
    wrong('it may be running, and does not count as such')
  end
  if task.state == 'tombstone' then
    return
  end
  if not task.body and not exists('body:' .. id) then
    wrong('its submission is gone')
  end
  if tonumber(redis.call('ZSCORE', list_key(task.state, task.user), id)) ~= task.seq then
    wrong('it is not in the list of its state')
  end
  for _, name in ipairs(cjson.decode(task.tags or '[]')) do
    if score_of('tag:' .. task.user .. ',' .. name, id) ~= task.seq then
      wrong('it cannot be found by its tag ' .. name)
    end
  end
  if task.callbacks then
    local is_awaited = redis.call('SISMEMBER', root .. 'awaited', id) == 1
    if not exists('callbacks:' .. id) then
      wrong('its callbacks are gone')
    elseif is_awaited == is_ended(task) then
      wrong('whether it has ended contradicts whether its end was told')
    end
  end
  if task.matching and may_run(task) and score_of('matching:' .. hexadecimal(task.matching), id) ~= task.seq then
    wrong('what it matches on does not name it')
  end
  content_of(task)
  result_of(task)
  files_of(task)
end
function look.key(name)
  local user, key = string.match(name, '^([^,]*),(.*)$')
  subject = 'key ' .. key .. ' of ' .. user
  local id = cmsgpack.unpack(redis.call('GET', root .. 'key:' .. name))
  local task = load(id)
  if not task or task.user ~= user then
    wrong('it names no task')
  elseif task.key ~= key and redis.call('SISMEMBER', root .. 'keys:' .. id, key) == 0 then
    wrong('the task that it names does not know it')
  end
end
function look.claim(name)
  subject = 'claim on content ' .. name
  local id = cmsgpack.unpack(redis.call('GET', root .. 'claim:' .. name))
  local task = whole(id)
  if not task then
    wrong('it names no task')
  elseif not task.is_content or claim_key(task.fingerprint) ~= root .. 'claim:' .. name then
    wrong('the task that it names has another content')
  end
end
function look.file(name)
  subject = 'file ' .. string.gsub(name, ':', ' of ', 1)
  local file = redis.call('HMGET', root .. 'file:' .. name, 'generation', 'size', 'refs', 'expires_at')
  if not (file[1] and file[2] and file[3]) then
    return wrong('its record is not whole')
  end
  local copy = string.match(name, '^%x+') .. '-' .. file[1]
  if redis.call('SISMEMBER', root .. 'blobs', copy) == 0 then
    wrong('nobody owns the copy that holds it')
  end
  copies[#copies + 1] = copy
  copies[#copies + 1] = file[2]
  files[#files + 1] = name
  files[#files + 1] = file[3]
  local expires_at = tonumber(file[4])
  if (tonumber(file[3]) > 0) == (expires_at ~= nil) or score_of('file-expiry', name) ~= expires_at then
    wrong('whether it expires contradicts whether it is needed')
  end
end
function look.body(id)
  subject = 'submission of task ' .. id
  if not whole(id) then
    wrong('there is no such task')
  end
end
function look.result(id)
  subject = 'result of task ' .. id
  local task = whole(id)
  if not task or not task.result_kind then
    wrong('there is no such task, or it has no result')
  end
end
function look.ledger(id)
  subject = 'duplicates of task ' .. id
  if not whole(id) then
    wrong('there is no such task')
  end
end
function look.callbacks(id)
  subject = 'callbacks of task ' .. id
  if not whole(id) then
    wrong('there is no such task')
  end
end
function look.withdrawn(id)
  subject = 'keys of task ' .. id .. ' that have withdrawn'
  if not whole(id) then
    wrong('there is no such task')
  end
end
function look.keys(id)
  subject = 'keys of task ' .. id
  if not load(id) then
    wrong('there is no such task')
  end
end
function look.schedule(name)
  local user, its_name = string.match(name, '^([^,]*),(.*)$')
  subject = 'schedule ' .. its_name .. ' of ' .. user
  local key = schedule_key(user, its_name)
  local fields = redis.call('HMGET', key, 'type', 'plan', 'revision', 'due', 'created_at', 'updated_at', 'next')
  for i = 1, 7 do
    if not fields[i] then
      return wrong('its record is not whole')
    end
  end
  for i = 3, 7 do
    if not tonumber(fields[i]) and (i == 3 or fields[i] ~= '') then
      return wrong('its record cannot be read')
    end
  end
  if cjson.decode(fields[2]).type ~= fields[1] then
    wrong('its plan is one of another type')
  end
  if score_of('schedules-due:' .. fields[1], name) ~= tonumber(fields[4]) then
    wrong('nothing says when it is due')
  end
  if redis.call('SISMEMBER', schedules_key(user), its_name) == 0 then
    wrong('it is not in the list of its user')
  end
end

for _, name in ipairs(ARGV) do
  local kind, rest = string.match(name, '^([^:]*):?(.*)$')
  subject = kind .. ' ' .. rest
  -- It may have gone since it was listed.
  if exists(name) then
    local is_read = not look[kind] or pcall(look[kind], rest)
    if not is_read then
      wrong('its record cannot be read')
    end
    if redis.call('PTTL', root .. name) ~= -1 then
      wrong('it would vanish by itself')
    end
  end
end
return { 'audited', faults, copies, needed, files }
