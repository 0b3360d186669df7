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
  enqueue_all(task.type, { score(task.priority, task.ready_at), place(task.seq, task.id) })
end
local function leave_queue(task)
  redis.call('ZREM', queue_key(task.type), place(task.seq, task.id))
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
