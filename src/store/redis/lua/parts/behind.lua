-- A task that waits for the end of another one is scheduled. The step that ends that one starts it; should that be one
-- of an older release, which knows nothing of it, whoever does what is due looks again after so many ms.
local LOOK_BEHIND = 60000
local function start_behind(task)
  task.behind = nil
  local starts_at = task.scheduled_at
  if not starts_at or starts_at <= now then
    return requeue(task, now)
  end
  task.due_at = starts_at
  save(task)
  due(task.id, starts_at)
  changed(task.id)
end
-- Those that wait behind, and whether there is still one that they wait for.
local function behind(task)
  local waiting, is_waited_for = {}, false
  for _, other in ipairs(matched(task.matching)) do
    if may_run(other) and other.behind then
      waiting[#waiting + 1] = other
    elseif may_run(other) and other.id ~= task.id then
      is_waited_for = true
    end
  end
  return waiting, is_waited_for
end
-- A task of a conflict mode is over, and saved: whoever waits behind it may start, unless another one still runs.
local function make_way(task)
  if not task.matching then
    return
  end
  if redis.call('ZRANGE', matching_key(task.matching), -1, -1)[1] ~= task.id then
    leave_matching(task)
  end
  local waiting, is_waited_for = behind(task)
  for _, other in ipairs(is_waited_for and {} or waiting) do
    start_behind(other)
  end
end
-- Looks whether a task that waits behind may start; says so.
local function look_behind(task)
  local _, is_waited_for = behind(task)
  if not is_waited_for then
    start_behind(task)
    return true
  end
  task.due_at = after(LOOK_BEHIND)
  save(task)
  due(task.id, task.due_at)
  return false
end
