-- Places of tasks: queues by type, deadlines, lists by user and state; and the news of them.
local function publish(text)
  local prefix, tag = string.match(KEYS[1], '^(.*){(.-)}')
  redis.call('PUBLISH', prefix .. 'news', string.format(text, tag))
end
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
-- Priority, then time: 0 to 9 above 42 bits of milliseconds, all within the 53 bits of a score.
local PRIORITY = 4398046511104
local function queue_key(type)
  return KEYS[1] .. 'queue:' .. type
end
-- Members of equal score go by their number.
local function place(task)
  return string.format('%015d %s', task.seq, task.id)
end
local function enqueue(task)
  local queue = queue_key(task.type)
  redis.call('ZADD', queue, task.priority * PRIORITY + task.ready_at, place(task))
  -- Whoever found the queue empty waits for this.
  if redis.call('ZCARD', queue) == 1 then
    publish('work %s')
  end
end
local function leave_queue(task)
  redis.call('ZREM', queue_key(task.type), place(task))
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
local function list_key(state, user)
  return KEYS[1] .. 'list:' .. state .. ':' .. user
end
