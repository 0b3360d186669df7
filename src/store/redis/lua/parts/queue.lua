-- Places of tasks: queues by type, deadlines, lists by user and state; and the news of them.
local queue_root = KEYS[1]
local function publish(text)
  local prefix, tag = string.match(queue_root, '^(.*){(.-)}')
  redis.call('PUBLISH', prefix .. 'news', string.format(text, tag))
end
local function changed(id)
  publish('task ' .. id)
end
-- Priority, then time: 0 to 9 above 42 bits of milliseconds, all within the 53 bits of a score.
local PRIORITY = 4398046511104
local function queue_key(type)
  return queue_root .. 'queue:' .. type
end
-- Members of equal score go by their number.
local function place(id, seq)
  return string.format('%015d %s', seq, id)
end
local function enqueue(id, task, ready_at)
  local queue = queue_key(task.type)
  redis.call('ZADD', queue, task.priority * PRIORITY + ready_at, place(id, task.seq))
  -- Whoever found the queue empty waits for this.
  if redis.call('ZCARD', queue) == 1 then
    publish('work %s')
  end
end
local function leave_queue(id, task)
  redis.call('ZREM', queue_key(task.type), place(id, task.seq))
end
local function due(id, at)
  redis.call('ZADD', queue_root .. 'due', at, id)
  if redis.call('ZRANGE', queue_root .. 'due', 0, 0)[1] == id then
    publish(string.format('due %%s %.0f', at))
  end
end
local function never_due(id)
  redis.call('ZREM', queue_root .. 'due', id)
end
local function list_key(state, user)
  return queue_root .. 'list:' .. state .. ':' .. user
end
