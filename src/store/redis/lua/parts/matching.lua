-- Tasks that the conflict modes hold against each other: by what they match on, a sorted set by their numbers of
-- those that may still run, and of the newest one, until that is forgotten.
local function matching_key(matching)
  return root .. 'matching:' .. hexadecimal(matching)
end
-- Whether it is unfinished, or its attempt has not confirmed yet that it stopped.
local function may_run(task)
  return not is_ended(task) or task.held or false
end
-- Oldest first, but for those whose records cannot be read: they hold up nobody.
local function matched(matching)
  local tasks = {}
  for _, id in ipairs(redis.call('ZRANGE', matching_key(matching), 0, -1)) do
    local task = load_if_whole(id)
    if task and task.state ~= 'tombstone' then
      tasks[#tasks + 1] = task
    end
  end
  return tasks
end
local function leave_matching(task)
  redis.call('ZREM', matching_key(task.matching), task.id)
end
-- Until when a throttled task answers for all that matches it.
local function throttles_until(task)
  return math.min(task.created_at + task.window, LAST)
end
