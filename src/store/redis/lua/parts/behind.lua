-- A task that waits for the end of another one: it is scheduled for the end of all times until then.
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
-- A task of a conflict mode is over, and saved: whoever waits behind it may start, unless another one still runs.
local function make_way(task)
  if not task.matching then
    return
  end
  local key = matching_key(task.matching)
  if redis.call('ZRANGE', key, -1, -1)[1] ~= task.id then
    leave_matching(task)
  end
  local waiting = {}
  for _, other in ipairs(matched(task.matching)) do
    if other.id ~= task.id and may_run(other) then
      if not other.behind then
        return
      end
      waiting[#waiting + 1] = other
    end
  end
  for _, other in ipairs(waiting) do
    start_behind(other)
  end
end
