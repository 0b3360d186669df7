-- A task goes from one state to another.
local function moved(id, task, to)
  redis.call('ZREM', list_key(task.state, task.user), id)
  gauge(task.user, task.type, task.state, -1)
  if to then
    redis.call('ZADD', list_key(to, task.user), task.seq, id)
    gauge(task.user, task.type, to, 1)
  end
  changed(id)
end
-- Back into the queue, at the place that its first wait gave it. The number that is spent tells a poll
-- that there is work.
local function requeue(id, task, ready_at)
  redis.call('HSET', task_key(id), 'state', 'queued', 'ready_at', ready_at)
  redis.call('HDEL', task_key(id), 'held', 'due_at')
  never_due(id)
  redis.call('INCR', KEYS[1] .. 'seq')
  enqueue(id, task, ready_at)
  moved(id, task, 'queued')
end
