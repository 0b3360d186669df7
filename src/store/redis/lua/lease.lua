#!lua flags=allow-oom
-- Leases tasks that are ready, most important and oldest first.
-- KEYS[1]  root of the partition
-- ARGV[1]  nonce of the call      ARGV[2]  tasks at most
-- ARGV[3…] for each type: its name, and how long its leases last, ms
-- Replies: leased, then for each: record, until when in ms
local nonce, max = ARGV[1], tonumber(ARGV[2])
-- A repeat finds what the first call leased for so long, ms.
local NONCE_KEPT = 60000
local earlier = redis.call('GET', root .. 'leased:' .. nonce)
if earlier then
  local reply = { 'leased' }
  for id in string.gmatch(earlier, '%S+') do
    local task = load(id)
    if task and task.held and task.lease_nonce == nonce then
      reply[#reply + 1] = shown(id)
      reply[#reply + 1] = task.due_at
    end
  end
  return reply
end
local heads = {}
for i = 3, #ARGV, 2 do
  local queue = redis.call('ZRANGE', queue_key(ARGV[i]), 0, max - 1, 'WITHSCORES')
  for j = 1, #queue, 2 do
    heads[#heads + 1] = { score = tonumber(queue[j + 1]), member = queue[j], lease = tonumber(ARGV[i + 1]) }
  end
end
table.sort(heads, function(a, b)
  if a.score == b.score then
    return a.member < b.member
  end
  return a.score < b.score
end)
local reply, leased = { 'leased' }, {}
for i = 1, math.min(max, #heads) do
  local id = string.match(heads[i].member, ' (.*)$')
  local task = load(id)
  local expires_at = after(heads[i].lease)
  local attempt = tonumber(task.attempt or 0) + 1
  redis.call('HSET', task_key(id), 'state', 'running', 'held', 1, 'attempt', attempt,
    'token', tonumber(task.token or 0) + 1, 'started_at', now, 'due_at', expires_at, 'lease_nonce', nonce)
  leave_queue(id, task)
  due(id, expires_at)
  latency(task.user, 'queue_wait', now - task.ready_at)
  tally(task.user, 'attempts', 1)
  if attempt > 1 then
    tally(task.user, 'retries', 1)
  end
  moved(id, task, 'running')
  leased[#leased + 1] = id
  reply[#reply + 1] = shown(id)
  reply[#reply + 1] = string.format('%.0f', expires_at)
end
if #leased > 0 then
  redis.call('SET', root .. 'leased:' .. nonce, table.concat(leased, ' '), 'PX', NONCE_KEPT)
end
return reply
