#!lua flags=allow-oom
-- Leases tasks that are ready. Types take turns, and so do the users of each who have something in line; of a user's
-- tasks the first in line goes first. Those whose concurrency key is taken are put aside.
-- KEYS[1]  root of the partition
-- ARGV[1]  nonce of the call      ARGV[2]  tasks at most
-- ARGV[3]  name of the worker, when it is one outside, or nothing: its nonces begin with OUTSIDE
-- ARGV[4]  tasks that earlier steps under this nonce have leased here, as far as the caller knows
-- ARGV[5…] for each type: its name; how long its leases last, ms; tasks of it at most; attempts of one user at a time,
--          or nothing; starts of one user, or nothing, within so many ms, or nothing
-- Replies: leased, ids of tasks whose records are gone or cannot be read with blanks between, more or done, users who
--   wait for their turn, then for each: record, until when in ms
local nonce, max, worker, known = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local ARGS_EACH = 6
-- A repeat finds what the first call leased for so long, ms.
local NONCE_KEPT = 60000
-- Users and tasks that one step looks at, at most: more than it leases, since some may have to wait.
local LOOKS_MAX = 400
-- Who is passed over is looked at again after so long, ms, at the latest: nobody may have told that what runs has ended,
-- and the bound may be another one by then.
local RECHECKED = 60000
local earlier = redis.call('GET', root .. 'leased:' .. nonce)
local leased = {}
for id in string.gmatch(earlier or '', '%S+') do
  leased[#leased + 1] = id
end
if #leased > known then
  local reply = { 'leased', '', 'more', 0 }
  for i = known + 1, #leased do
    local task = load_if_whole(leased[i])
    if task and task.held and task.lease_nonce == nonce then
      reply[#reply + 1] = shown(task)
      reply[#reply + 1] = task.due_at
    end
  end
  return reply
end

-- What is asked for. The type that was served longest ago is first.
local asked, names = {}, {}
for i = 5, #ARGV, ARGS_EACH do
  asked[#asked + 1] = {
    number = #asked, type = ARGV[i], lease = tonumber(ARGV[i + 1]), room = tonumber(ARGV[i + 2]),
    per_user = tonumber(ARGV[i + 3]), starts = tonumber(ARGV[i + 4]), span = tonumber(ARGV[i + 5]),
    turns = turns_key(ARGV[i]), page = {}, at = 1, offset = 0, again = {}, lines = {}, served = 0,
  }
  names[#names + 1] = ARGV[i]
end
if #asked > 1 then
  for i, served in ipairs(redis.call('ZMSCORE', root .. 'types', unpack(names))) do
    asked[i].served = tonumber(served or 0)
  end
  table.sort(asked, function(a, b)
    if a.served == b.served then
      return a.number < b.number
    end
    return a.served < b.served
  end)
end

-- All are read before the first is changed.
local looks = 0
local function is_broken(id)
  return redis.call('SISMEMBER', root .. 'broken', id) == 1
end
-- What runs of a user. What is held for records that cannot be read is free.
local function running(held, per_user)
  local count = redis.call('HLEN', held)
  if count >= per_user then
    local all = redis.call('HGETALL', held)
    for i = 1, #all, 2 do
      if is_broken(all[i + 1]) then
        redis.call('HDEL', held, all[i])
        count = count - 1
      end
    end
  end
  return count
end
local function starts_key(line)
  return root .. 'starts:' .. line.of.type .. ',' .. line.user
end
local function open_line(of, user)
  looks = looks + 1
  local line = {
    of = of, user = user, key = line_key(of.type, user), held = held_key(of.type, user), members = {}, at = 1,
    offset = 0, window = of.window, out = {}, aside = {}, slots = {}, holds = {}, starts = {},
    free = math.huge, starts_left = math.huge,
  }
  if of.per_user then
    line.free = of.per_user - running(line.held, of.per_user)
  end
  if of.starts then
    local since = '(' .. string.format('%.0f', now - of.span)
    line.starts_left = of.starts - redis.call('ZCOUNT', starts_key(line), since, '+inf')
  end
  of.lines[#of.lines + 1] = line
  return line
end
-- In the first round all who wait, then those who have more.
local function next_line(of)
  if of.at > #of.page and not of.is_read then
    of.page = redis.call('ZRANGE', of.turns, of.offset, of.offset + max - 1, 'WITHSCORES')
    of.at, of.offset, of.is_read = 1, of.offset + max, #of.page < 2 * max
    of.window = of.window or math.ceil(2 * max / math.max(#of.page, 1))
  end
  local user, since = of.page[of.at], of.page[of.at + 1]
  if user and tonumber(since) < RATED then
    of.at = of.at + 2
    return open_line(of, user)
  end
  of.page, of.is_read = {}, true
  return table.remove(of.again, 1)
end
local function is_taken(line, slot)
  if line.slots[slot] then
    return true
  end
  local id = redis.call('HGET', line.held, slot)
  return id and not is_broken(id)
end
-- The first task of the line that may run, if there is one.
local function first_of(line)
  while looks < LOOKS_MAX do
    if line.at <= #line.members then
      local member, at = line.members[line.at], line.members[line.at + 1]
      local id, slot = string.match(member, '^%d+ (%S+) ?(%S*)$')
      line.at, looks = line.at + 2, looks + 1
      line.out[#line.out + 1] = member
      if slot ~= '' and is_taken(line, slot) then
        line.aside[#line.aside + 1] = { slot, at, member }
      else
        local task = load_if_whole(id or '')
        if task then
          line.slots[slot] = slot ~= ''
          return task
        end
        -- What cannot be read keeps nobody waiting behind it.
        put_aside(id or member)
        line.lost = line.lost or {}
        line.lost[#line.lost + 1] = slot
      end
    elseif line.is_read then
      return nil
    else
      line.members = redis.call('ZRANGE', line.key, line.offset, line.offset + line.window - 1, 'WITHSCORES')
      line.is_read = #line.members < 2 * line.window
      line.at, line.offset, line.window = 1, line.offset + line.window, line.window * 2
    end
  end
end
-- One task of the type, of the user whose turn it is.
local function first_of_type(of)
  while of.room > 0 and looks < LOOKS_MAX do
    local line = next_line(of)
    if not line then
      return nil
    end
    local task = line.free > 0 and line.starts_left > 0 and first_of(line)
    if task then
      of.room, line.free, line.starts_left = of.room - 1, line.free - 1, line.starts_left - 1
      if line.free > 0 and line.starts_left > 0 then
        of.again[#of.again + 1] = line
      end
      return { task = task, line = line }
    end
  end
end
local chosen = {}
repeat
  local before = #chosen
  for _, of in ipairs(asked) do
    if #chosen < max then
      local one = first_of_type(of)
      chosen[#chosen + 1] = one
      if one then
        one.line.turn, of.turn = #chosen, #chosen
      end
    end
  end
until #chosen == before or #chosen == max

local reply = { 'leased', table.concat(broken, ' '), '', 0 }
gather_counts()
local first_at, made, holders = nil, {}, {}
for i, one in ipairs(chosen) do
  local task, line = one.task, one.line
  local expires_at = after(line.of.lease)
  -- Grows with the clock, too: a lease that Redis has forgotten with its last moments is not given out again.
  task.held, task.attempt, task.token = true, (task.attempt or 0) + 1, math.max((task.token or 0) + 1, now)
  task.started_at, task.due_at, task.lease_nonce = now, expires_at, nonce
  move(task, 'running')
  save(task)
  redis.call('ZADD', root .. 'due', expires_at, task.id)
  if worker ~= '' then
    redis.call('HSET', root .. 'outside', task.id, string.format('%.0f %.0f %s %s', now, now, task.type, worker))
  end
  line.holds[#line.holds + 1] = task.slot or task.id
  line.holds[#line.holds + 1] = task.id
  if task.slot then
    holders[#holders + 1], holders[#holders + 2] = task.id, task.type .. ' ' .. task.user .. ' ' .. task.slot
  end
  line.starts[#line.starts + 1] = now
  line.starts[#line.starts + 1] = task.id .. string.format(' %.0f', task.token)
  latency(task.user, 'queue_wait', now - task.ready_at)
  tally(task.user, 'attempts', 1)
  if task.attempt > 1 then
    tally(task.user, 'retries', 1)
  end
  made[i], leased[#leased + 1] = task.id, task.id
  reply[#reply + 1] = shown(task)
  reply[#reply + 1] = expires_at
  if not first_at or expires_at < first_at then
    first_at = expires_at
  end
end
if #holders > 0 then
  redis.call('HSET', holders_key, unpack(holders))
end
write_counts()

-- When the user may start the next one.
local function started(line)
  local key, of = starts_key(line), line.of
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - of.span)
  if #line.starts > 0 then
    redis.call('ZADD', key, unpack(line.starts))
    redis.call('PEXPIRE', key, of.span)
  end
  local last = redis.call('ZRANGE', key, -of.starts, -of.starts, 'WITHSCORES')
  return (last[2] or now) + of.span
end
local wakes_at = nil
-- Takes out of line what is chosen; gives where the user stands among the others, if anywhere else than before.
local function leave_line(line)
  local of = line.of
  if #line.out > 0 then
    redis.call('ZREM', line.key, unpack(line.out))
  end
  for _, one in ipairs(line.aside) do
    redis.call('ZADD', aside_key(of.type, line.user, one[1]), one[2], one[3])
  end
  if #line.holds > 0 then
    redis.call('HSET', line.held, unpack(line.holds))
  end
  for _, slot in ipairs(line.lost or {}) do
    if slot ~= '' and not is_taken(line, slot) then
      come_back(of.type, line.user, slot)
    end
  end
  local next_at = of.starts and started(line)
  if redis.call('EXISTS', line.key) == 0 then
    redis.call('ZREM', of.turns, line.user)
  elseif line.free <= 0 then
    of.wakes_at = math.min(of.wakes_at or math.huge, now + RECHECKED)
    return FULL + now + RECHECKED
  elseif line.starts_left <= 0 then
    next_at = math.min(next_at, now + RECHECKED)
    of.wakes_at = math.min(of.wakes_at or math.huge, next_at)
    wakes_at = math.min(wakes_at or math.huge, next_at)
    return RATED + next_at
  else
    return line.turn and micros + line.turn
  end
end
local has_more, waiting = false, 0
for _, of in ipairs(asked) do
  local stands = {}
  for _, line in ipairs(of.lines) do
    local at = leave_line(line)
    if at then
      stands[#stands + 1] = at
      stands[#stands + 1] = line.user
    end
  end
  if #stands > 0 then
    redis.call('ZADD', of.turns, unpack(stands))
  end
  if of.wakes_at then
    redis.call('ZADD', waits_key, 'LT', of.wakes_at, of.type)
  end
  if of.turn and #asked > 1 then
    redis.call('ZADD', root .. 'types', micros + of.turn, of.type)
  end
  local users = count_turns(of.turns)
  waiting = waiting + users
  has_more = has_more or users > 0
end
reply[3], reply[4] = has_more and 'more' or 'done', waiting
if wakes_at then
  publish(string.format('due %%s %.0f', wakes_at))
end
if #made > 0 then
  redis.call('SET', root .. 'leased:' .. nonce, table.concat(leased, ' '), 'PX', NONCE_KEPT)
  changed(table.concat(made, ' '))
  local soonest = redis.call('ZRANGE', root .. 'due', 0, 0, 'WITHSCORES')
  if tonumber(soonest[2]) == first_at then
    publish(string.format('due %%s %.0f', first_at))
  end
end
return reply
