-- Where tasks stand: in lines of their users, who take turns by type, and in lists by user and state. And the news
-- of it.
local function publish(text)
  local prefix, tag = string.match(KEYS[1], '^(.*){(.-)}')
  redis.call('PUBLISH', prefix .. 'news', string.format(text, tag))
end
local function list_key(state, user)
  return root .. 'list:' .. state .. ':' .. user
end
-- A user's tasks of a type that may run, the best first.
local function line_key(type, user)
  return root .. 'line:' .. type .. ',' .. user
end
-- Those that wait until another one of their concurrency key has ended, the best first. While there are any, one of
-- that key runs or is in line.
local function aside_key(type, user, slot)
  return root .. 'aside:' .. type .. ',' .. user .. ',' .. slot
end
-- What the attempts of a user hold: each its concurrency key, or else the id of its task; and whose it is.
local function held_key(type, user)
  return root .. 'held:' .. type .. ',' .. user
end
-- Whose concurrency key it is that a task holds, should its record tell no more: type, user and key with blanks between,
-- by the task's id.
local holders_key = root .. 'holders'
-- The users of a type who have something in line: by when they had their last turn, or had nothing in line, in us.
-- Behind them those who are passed over, by when they are looked at again, in ms: RATED and more for what has
-- started, FULL and more for what runs.
local function turns_key(type)
  return root .. 'turns:' .. type
end
local RATED, FULL = 4000000000000000, 6000000000000000
-- Of those who are passed over, when the first is looked at again, by type.
local waits_key = root .. 'waits'
-- Members of equal score go by their number.
local function place(seq, id, slot)
  return string.format('%015d %s', seq, id) .. (slot and ' ' .. slot or '')
end
-- A level of priority is worth so much time, ms, unless the record says otherwise.
local AGEING = 60000
local function score(priority, ready_at, ageing)
  return ready_at + priority * (ageing or AGEING)
end
-- Users who may have their turn.
local function count_turns(turns)
  return redis.call('ZCOUNT', turns, '-inf', '(' .. string.format('%.0f', RATED))
end
-- The user has something to lease again. Whoever has found nobody waits for this.
local function take_turns(turns, user)
  redis.call('ZADD', turns, micros, user)
  if count_turns(turns) == 1 then
    publish('work %s')
  end
end
-- Scores and places in turn. A user who comes anew stands behind those who wait.
local function enqueue_all(type, user, tasks)
  redis.call('ZADD', line_key(type, user), unpack(tasks))
  local turns = turns_key(type)
  if redis.call('ZADD', turns, 'NX', micros, user) == 1 and count_turns(turns) == 1 then
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
