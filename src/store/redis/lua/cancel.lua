#!lua flags=allow-oom
-- Cancels a task, or withdraws the interest of one key in it: the last one that goes cancels it. An attempt that runs
-- is told when it renews its lease.
-- KEYS[1] root of the partition
-- ARGV[1] task  ARGV[2] user  ARGV[3] key that withdraws, or nothing
-- Replies: cancelled, record, stopping or stopped · wanted, record · key-unknown · ended, record · unknown · forgotten
if missing then
  return { missing }
end
if task.state == 'succeeded' or task.state == 'failed' then
  return { 'ended', shown(task) }
end
-- Whether somebody else still wants it. Those without a key count as one.
local function wanted_without(key)
  redis.call('SADD', withdrawn_key(id), key)
  local keys = redis.call('SCARD', root .. 'keys:' .. id) + (task.key and 1 or 0)
  return task.keyless or not task.key or redis.call('SCARD', withdrawn_key(id)) < keys
end
local key = ARGV[3]
if key ~= '' then
  local bound = redis.call('GET', root .. 'key:' .. user .. ',' .. key)
  if not bound or cmsgpack.unpack(bound) ~= id then
    return { 'key-unknown' }
  end
  if task.state ~= 'cancelled' and wanted_without(key) then
    return { 'wanted', shown(task) }
  end
end
if task.state ~= 'cancelled' then
  give_up(task, 'cancelled', nil, task.held)
end
return { 'cancelled', shown(task), task.held and 'stopping' or 'stopped' }
