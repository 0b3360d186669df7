#!lua flags=allow-oom
-- Leases tasks that are ready, most important and oldest first.
-- KEYS[1]  root of the partition
-- ARGV[1]  nonce of the call      ARGV[2]  tasks at most
-- ARGV[3]  name of the worker, when it is one outside, or nothing: its nonces begin with OUTSIDE
-- ARGV[4…] for each type: its name, and how long its leases last, ms
-- Replies: leased, ids of tasks whose records are gone or cannot be read with blanks between, then for each: record,
--   until when in ms
local nonce, max, worker = ARGV[1], tonumber(ARGV[2]), ARGV[3]
-- A repeat finds what the first call leased for so long, ms.
local NONCE_KEPT = 60000
local reply = { 'leased', '' }
local earlier = redis.call('GET', root .. 'leased:' .. nonce)
if earlier then
  for id in string.gmatch(earlier, '%S+') do
    local task = load_if_whole(id)
    if task and task.held and task.lease_nonce == nonce then
      reply[#reply + 1] = shown(task)
      reply[#reply + 1] = task.due_at
    end
  end
  return reply
end
local function heads_of_all()
  local heads = {}
  for i = 4, #ARGV, 2 do
    local queue = redis.call('ZRANGE', queue_key(ARGV[i]), 0, max - 1, 'WITHSCORES')
    for j = 1, #queue, 2 do
      heads[#heads + 1] = {
        score = tonumber(queue[j + 1]), member = queue[j], type = ARGV[i], lease = tonumber(ARGV[i + 1]),
      }
    end
  end
  if #ARGV > 5 then
    table.sort(heads, function(a, b)
      if a.score == b.score then
        return a.member < b.member
      end
      return a.score < b.score
    end)
  end
  return heads
end
-- All are read before the first is changed. What cannot be read keeps nobody waiting behind it.
local heads, chosen
repeat
  heads, chosen = heads_of_all(), {}
  local are_whole = true
  for i = 1, math.min(max, #heads) do
    local id = string.match(heads[i].member, ' (.*)$')
    local task = load_if_whole(id)
    if task then
      heads[i].task = task
      chosen[#chosen + 1] = heads[i]
    else
      redis.call('ZREM', queue_key(heads[i].type), heads[i].member)
      put_aside(id)
      are_whole = false
    end
  end
until are_whole
reply[2] = table.concat(broken, ' ')
gather_counts()
local leased = {}
local first_at = nil
for i, head in ipairs(chosen) do
  local task = head.task
  local expires_at = after(head.lease)
  redis.call('ZREM', queue_key(task.type), head.member)
  -- Grows with the clock, too: a lease that Redis has forgotten with its last moments is not given out again.
  task.held, task.attempt, task.token = true, (task.attempt or 0) + 1, math.max((task.token or 0) + 1, now)
  task.started_at, task.due_at, task.lease_nonce = now, expires_at, nonce
  move(task, 'running')
  save(task)
  redis.call('ZADD', root .. 'due', expires_at, task.id)
  if worker ~= '' then
    redis.call('HSET', root .. 'outside', task.id, string.format('%.0f %.0f %s %s', now, now, task.type, worker))
  end
  latency(task.user, 'queue_wait', now - task.ready_at)
  tally(task.user, 'attempts', 1)
  if task.attempt > 1 then
    tally(task.user, 'retries', 1)
  end
  leased[i] = task.id
  reply[#reply + 1] = shown(task)
  reply[#reply + 1] = expires_at
  if not first_at or expires_at < first_at then
    first_at = expires_at
  end
end
write_counts()
if #leased > 0 then
  local ids = table.concat(leased, ' ')
  redis.call('SET', root .. 'leased:' .. nonce, ids, 'PX', NONCE_KEPT)
  changed(ids)
  local soonest = redis.call('ZRANGE', root .. 'due', 0, 0, 'WITHSCORES')
  if tonumber(soonest[2]) == first_at then
    publish(string.format('due %%s %.0f', first_at))
  end
end
return reply
