#!lua
-- Writes what was said about duplicates, and how long submissions took: behind the answers, in batches.
-- KEYS[1]  root of the partition
-- ARGV[1]  nonce of the batch
-- ARGV[2]  counts, then for each: user, name, by
-- then     latencies, then for each: user, bucket, count
-- then     tasks, then for each: id, duplicates, entries, then each entry as JSON, oldest first
-- Replies: noted · again
local LEDGER_KEPT, NONCE_KEPT = 100, 600000
local at = 1
local function read()
  at = at + 1
  return ARGV[at]
end
if not redis.call('SET', root .. 'noted:' .. ARGV[1], '', 'NX', 'PX', NONCE_KEPT) then
  return { 'again' }
end
for _ = 1, tonumber(read()) do
  local user, name, by = read(), read(), read()
  tally(user, name, by)
end
for _ = 1, tonumber(read()) do
  local user, bucket, by = read(), read(), read()
  count('latency ' .. now - now % LATENCY_BUCKET .. ' submit ' .. bucket .. ' ' .. user, by)
end
for _ = 1, tonumber(read()) do
  local id, duplicates, entries = read(), tonumber(read()), tonumber(read())
  local task = load_if_whole(id)
  -- A forgotten task has no ledger any more.
  local is_kept = task and task.state ~= 'tombstone'
  if is_kept then
    task.duplicates = (task.duplicates or 0) + duplicates
    save(task)
  end
  local newest = {}
  for i = 1, entries do
    newest[i] = read()
  end
  if is_kept and entries > 0 then
    redis.call('LPUSH', root .. 'ledger:' .. id, unpack(newest))
    redis.call('LTRIM', root .. 'ledger:' .. id, 0, LEDGER_KEPT - 1)
  end
end
return { 'noted' }
