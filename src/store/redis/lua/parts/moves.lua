-- Notes a visible change of a task for those who follow it, in the words of domain/event.rs. mark: 'p' where only the
-- progress has changed. Whoever calls this saves the task.
local TRAIL_BYTES_MAX = 2048
local function note_change(task, mark)
  local function since_creation(at)
    return at and string.format('%.0f', at - task.created_at) or ''
  end
  local line = table.concat({
    '\n' .. mark .. task.state, string.format('%.0f', task.attempt or 0), since_creation(now),
    since_creation(task.started_at), since_creation(task.state == 'retrying' and task.due_at or nil),
    task.progress or '', task.error or '',
  }, '\t')
  task.revision = (task.revision or 1) + 1
  task.trail = string.sub((task.trail or '') .. line, -TRAIL_BYTES_MAX)
end
-- A task goes from one state to another, or to none. Whoever moves it saves it, and tells of it.
local function move(task, to)
  redis.call('ZREM', list_key(task.state, task.user), task.id)
  if to then
    redis.call('ZADD', list_key(to, task.user), task.seq, task.id)
  end
  gauge(task.user, task.type, task.state, to or '-')
  task.state = to
  if task.type == DELIVERY then
    local is_over = not to or is_ended(task)
    redis.call(is_over and 'SREM' or 'SADD', deliveries_key(task.user), task.id)
  end
  if to then
    note_change(task, '')
  end
end
-- The nonces of workers outside begin so; what those hold is kept in one hash, too.
local OUTSIDE = 'o'
local function is_outside(task)
  return task.lease_nonce and string.sub(task.lease_nonce, 1, 1) == OUTSIDE
end
-- The lease is over. Whoever calls this saves the task.
local function let_go(task)
  if is_outside(task) then
    redis.call('HDEL', KEYS[1] .. 'outside', task.id)
  end
  if task.held then
    free(task)
  end
  task.held, task.lease_nonce = nil, nil
end
-- Back into line, at the place that its first wait gave it. The number that is spent tells a poll
-- that there is work.
local function requeue(task, ready_at)
  let_go(task)
  task.ready_at, task.due_at = ready_at, nil
  never_due(task.id)
  redis.call('INCR', KEYS[1] .. 'seq')
  enqueue(task)
  move(task, 'queued')
  save(task)
  changed(task.id)
end
