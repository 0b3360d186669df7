#!lua flags=no-writes
-- Looks at members of lists, lines, turns, what is held, deadlines, tags, keys and schedules: whether each is as they say.
-- KEYS[1]  root of the partition
-- ARGV[1]  name of the set, without the root
-- ARGV[2…] members
-- Replies: audited, what is wrong (a line each)
local name = ARGV[1]
local kind, rest = string.match(name, '^([^:]*):?(.*)$')
local WAITS = { scheduled = true, retrying = true, running = true }

-- For each kind: whether this member, with this score, is right. Gives the reason when it is not.
local agrees = {}
function agrees.list(id, at)
  local task = load(id)
  if not task or list_key(task.state, task.user) ~= root .. name or task.seq ~= at then
    return 'no such task is in this state'
  end
end
local function queued(member)
  local task = load(string.match(member, '^%d+ (%S+)') or '')
  return task and task.state == 'queued' and place(task.seq, task.id, task.slot) == member and task
end
function agrees.line(member)
  local task = queued(member)
  if not task or line_key(task.type, task.user) ~= root .. name then
    return 'no such task is queued'
  end
end
function agrees.aside(member)
  local task = queued(member)
  if not task or not task.slot or aside_key(task.type, task.user, task.slot) ~= root .. name then
    return 'no such task is queued'
  end
end
function agrees.turns(user)
  if redis.call('EXISTS', line_key(rest, user)) == 0 then
    return 'nothing of this user is in line'
  end
end
function agrees.held(slot, id)
  local task = load(id)
  if not task or not task.held or (task.slot or id) ~= slot or held_key(task.type, task.user) ~= root .. name then
    return 'no such task runs'
  end
end
function agrees.due(id, at)
  local task = load(id)
  if not task or not WAITS[task.state] or task.due_at ~= at then
    return 'no such task waits for this'
  end
end
function agrees.expiry(id)
  local task = load(id)
  if not task or not is_ended(task) then
    return 'no such task has ended'
  end
end
agrees['file-expiry'] = function(member)
  local sha256, user = string.match(member, '^(%x+):(.*)$')
  if not user or redis.call('HGET', file_key(user, sha256), 'refs') ~= '0' then
    return 'there is no such file, or it is needed'
  end
end
function agrees.tag(id)
  local task = load(id)
  for _, tag in ipairs(cjson.decode(task and task.tags or '[]')) do
    if rest == task.user .. ',' .. tag then
      return nil
    end
  end
  return 'no such task has this tag'
end
function agrees.keys(key)
  local task = load(rest)
  local is_kept = task and (not is_ended(task) or now < math.min(task.finished_at + task.key_kept, LAST))
  if is_kept and redis.call('EXISTS', root .. 'key:' .. task.user .. ',' .. key) == 0 then
    return 'it is gone'
  end
end
function agrees.matching(id, at)
  local task = load(id)
  if not task or task.state == 'tombstone' or not task.matching or hexadecimal(task.matching) ~= rest or task.seq ~= at then
    return 'no such task matches on this'
  end
  if not may_run(task) and redis.call('ZRANGE', root .. name, -1, -1)[1] ~= id then
    return 'it is over, and not the newest one'
  end
end
function agrees.deliveries(id)
  local task = load(id)
  if not task or task.type ~= DELIVERY or task.user ~= rest or is_ended(task) then
    return 'no such delivery is unfinished'
  end
end
function agrees.schedules(its_name)
  if not is_hash(schedule_key(rest, its_name)) then
    return 'there is no such schedule'
  end
end
agrees['schedules-due'] = function(member, at)
  local schedule = redis.call('HMGET', root .. 'schedule:' .. member, 'type', 'due')
  if schedule[1] ~= rest or tonumber(schedule[2]) ~= at then
    return 'no such schedule is due then'
  end
end

local faults = {}
for i = 2, #ARGV do
  local member, at = ARGV[i], nil
  local is_there = false
  if kind == 'keys' or kind == 'schedules' or kind == 'deliveries' then
    is_there = redis.call('SISMEMBER', root .. name, member) == 1
  elseif kind == 'held' then
    at = redis.call('HGET', root .. name, member)
    is_there = at
  else
    at = tonumber(redis.call('ZSCORE', root .. name, member))
    is_there = at ~= nil
  end
  -- It may have gone since it was listed.
  if is_there then
    local is_read, why = pcall(agrees[kind], member, at)
    why = is_read and why or not is_read and 'its record cannot be read'
    if why then
      faults[#faults + 1] = member .. ' in ' .. name .. ': ' .. why
    end
  end
end
return { 'audited', faults }
