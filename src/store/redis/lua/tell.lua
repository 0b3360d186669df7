#!lua flags=allow-oom
-- Tells of ends that were recorded without telling, by a replica of an older release.
-- KEYS[1] root of the partition
-- ARGV[1] where to go on, 0 at first  ARGV[2] tasks looked at, about
-- Replies: told, where to go on, 0 at the end
local page = redis.call('SSCAN', root .. 'awaited', ARGV[1], 'COUNT', ARGV[2])
for _, id in ipairs(page[2]) do
  local task = load_if_whole(id)
  if task == nil or task and task.state == 'tombstone' then
    forget_callbacks(id)
  elseif task and (is_ended(task) or not task.callbacks) then
    task.callbacks = true
    if is_ended(task) then
      tell_end(task)
    end
    save(task)
  end
end
return { 'told', page[1] }
