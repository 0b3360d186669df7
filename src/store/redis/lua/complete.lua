#!lua flags=allow-oom
-- Records the success of tasks, each by itself.
-- KEYS[1] root of the partition
-- ARGV    for each task: its id, user, fencing token, kind of the result (inline or blob), the result, name of the
--         copy or nothing
-- Replies, for each: recorded, record · lost · broken, why
-- The task; false when the lease is lost, nil when there never was one.
local function complete(id, user, token, kind, result, blob)
  local task = load(id)
  if not task or task.user ~= user then
    return nil
  elseif task.token ~= token then
    return false
  elseif not task.held then
    -- The step once more, after its outcome was unknown.
    return task.state == 'succeeded' and task
  end
  attempt_over(task)
  if task.state == 'cancelled' then
    confirm_stopped(task)
    return false
  end
  succeed(task, kind, result, blob)
  return task
end

gather_counts()
gather_news()
local replies = {}
for i = 1, #ARGV, 6 do
  local user = ARGV[i + 1]
  -- A record that cannot be read harms no other completion.
  local is_whole, task =
    pcall(complete, ARGV[i], user, tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
  if not is_whole then
    replies[#replies + 1] = { 'broken', task.err or tostring(task) }
  elseif task then
    replies[#replies + 1] = { 'recorded', shown(task) }
  else
    if task == false then
      tally(user, 'writes_fenced', 1)
    end
    replies[#replies + 1] = { 'lost' }
  end
end
write_counts()
write_news()
return replies
