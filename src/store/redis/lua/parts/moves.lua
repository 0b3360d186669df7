-- A task goes from one state to another, or to none. Whoever moves it saves it, and tells of it.
local function move(task, to)
  redis.call('ZREM', list_key(task.state, task.user), task.id)
  if to then
    redis.call('ZADD', list_key(to, task.user), task.seq, task.id)
  end
  gauge(task.user, task.type, task.state, to or '-')
  task.state = to
end
-- Back into the queue, at the place that its first wait gave it. The number that is spent tells a poll
-- that there is work.
local function requeue(task, ready_at)
  task.ready_at, task.held, task.due_at = ready_at, nil, nil
  never_due(task.id)
  redis.call('INCR', KEYS[1] .. 'seq')
  enqueue(task)
  move(task, 'queued')
  save(task)
  changed(task.id)
end
