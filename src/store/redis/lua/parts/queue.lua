-- Tasks go in and out of queues and deadlines, and others are told what became of them.
-- Any number of ids, with blanks between.
local news = nil
local function changed(ids)
  if news then
    news[#news + 1] = ids
  else
    publish('task ' .. ids)
  end
end
-- For steps that change many tasks: what follows is told in one piece at the end.
local function gather_news()
  news = {}
end
local function write_news()
  if #news > 0 then
    publish('task ' .. table.concat(news, ' '))
  end
  news = nil
end
local function enqueue(task)
  enqueue_all(task.type, task.user,
    { score(task.priority, task.ready_at, task.ageing), place(task.seq, task.id, task.slot) })
end
-- The best of those that wait for a concurrency key is in line again.
local function come_back(type, user, slot)
  local aside = aside_key(type, user, slot)
  local best = redis.call('ZRANGE', aside, 0, 0, 'WITHSCORES')
  if best[1] then
    redis.call('ZREM', aside, best[1])
    enqueue_all(type, user, { best[2], best[1] })
  end
end
-- A queued task has become more important.
local function move_up(task)
  local member, at = place(task.seq, task.id, task.slot), score(task.priority, task.ready_at, task.ageing)
  local aside = task.slot and aside_key(task.type, task.user, task.slot)
  if aside and redis.call('ZSCORE', aside, member) then
    redis.call('ZADD', aside, at, member)
  else
    redis.call('ZADD', line_key(task.type, task.user), at, member)
  end
end
-- A queued task will not run. One that waits for the same concurrency key takes its place.
local function leave_queue(task)
  local type, user, slot = task.type, task.user, task.slot
  local line, member = line_key(type, user), place(task.seq, task.id, slot)
  if redis.call('ZREM', line, member) == 0 then
    if slot then
      redis.call('ZREM', aside_key(type, user, slot), member)
    end
    return
  end
  if slot and redis.call('HEXISTS', held_key(type, user), slot) == 0 then
    come_back(type, user, slot)
  end
  if redis.call('EXISTS', line) == 0 then
    redis.call('ZREM', turns_key(type), user)
  end
end
-- An attempt is over. What it has held is free for the next one.
local function free(task)
  local type, user, slot = task.type, task.user, task.slot
  redis.call('HDEL', held_key(type, user), slot or task.id)
  if slot then
    come_back(type, user, slot)
    redis.call('HDEL', holders_key, task.id)
  end
  local turns = turns_key(type)
  if tonumber(redis.call('ZSCORE', turns, user) or 0) >= FULL then
    take_turns(turns, user)
  end
end
local function due(id, at)
  redis.call('ZADD', KEYS[1] .. 'due', at, id)
  if redis.call('ZRANGE', KEYS[1] .. 'due', 0, 0)[1] == id then
    publish(string.format('due %%s %.0f', at))
  end
end
local function never_due(id)
  redis.call('ZREM', KEYS[1] .. 'due', id)
end
