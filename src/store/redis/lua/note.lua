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
  count(string.format('latency %.0f submit %s %s', now - now % LATENCY_BUCKET, bucket, user), by)
end
for _ = 1, tonumber(read()) do
  local id, duplicates, entries = read(), read(), tonumber(read())
  local state = redis.call('HGET', task_key(id), 'state')
  -- A forgotten task has no ledger any more.
  local is_kept = state and state ~= 'tombstone'
  if is_kept then
    redis.call('HINCRBY', task_key(id), 'duplicates', duplicates)
  end
  for _ = 1, entries do
    local entry = read()
    if is_kept then
      redis.call('LPUSH', root .. 'ledger:' .. id, entry)
    end
  end
  if is_kept then
    redis.call('LTRIM', root .. 'ledger:' .. id, 0, LEDGER_KEPT - 1)
  end
end
return { 'noted' }
