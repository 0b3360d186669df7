-- Where tasks stand: in queues by type, and in lists by user and state. And the news of it.
local function publish(text)
  local prefix, tag = string.match(KEYS[1], '^(.*){(.-)}')
  redis.call('PUBLISH', prefix .. 'news', string.format(text, tag))
end
local function list_key(state, user)
  return root .. 'list:' .. state .. ':' .. user
end
-- Priority, then time: 0 to 9 above 42 bits of milliseconds, all within the 53 bits of a score.
local PRIORITY = 4398046511104
local function queue_key(type)
  return root .. 'queue:' .. type
end
-- Members of equal score go by their number.
local function place(seq, id)
  return string.format('%015d %s', seq, id)
end
local function score(priority, ready_at)
  return priority * PRIORITY + ready_at
end
-- Scores and places in turn.
local function enqueue_all(type, tasks)
  local queue = queue_key(type)
  redis.call('ZADD', queue, unpack(tasks))
  -- Whoever found the queue empty waits for this.
  if redis.call('ZCARD', queue) * 2 == #tasks then
    publish('work %s')
  end
end
-- The type of the service's own tasks: they count for nobody. Those of a user that have not ended are kept in a set.
local DELIVERY = 'deliver_webhook'
local function deliveries_key(user)
  return root .. 'deliveries:' .. user
end
local UNFINISHED = { 'scheduled', 'queued', 'running', 'retrying' }
-- Tasks of a user that have not ended, without the service's own.
local function unfinished_of(user)
  local count = -redis.call('SCARD', deliveries_key(user))
  for _, state in ipairs(UNFINISHED) do
    count = count + redis.call('ZCARD', list_key(state, user))
  end
  return count
end
