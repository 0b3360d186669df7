#!lua flags=no-writes
-- Lists tasks of one user, newest first.
-- KEYS[1]  root of the partition
-- ARGV[1]  user                          ARGV[2]  before this number, or nothing
-- ARGV[3]  tasks at most                 ARGV[4]  tasks looked at, at most
-- ARGV[5]  type, or nothing              ARGV[6]  fingerprint, or nothing
-- ARGV[7]  state, or nothing
-- ARGV[8…] names of lists to look through: no task is in two of them
-- Replies: listed, more or done, number of the last task looked at or nothing, then the records
local user, before = ARGV[1], ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
local max, looked_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local type, fingerprint, state = ARGV[5], ARGV[6], ARGV[7]

local found = {}
for i = 8, #ARGV do
  local part = redis.call('ZRANGE', root .. ARGV[i], before, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, looked_max,
    'WITHSCORES')
  for j = 1, #part, 2 do
    found[#found + 1] = { id = part[j], seq = tonumber(part[j + 1]) }
  end
end
table.sort(found, function(a, b)
  return a.seq > b.seq
end)

-- Bytes of submissions and results that one answer holds, about.
local BYTES_MAX = 4194304
local records, last, bytes = {}, nil, 0
for i = 1, math.min(#found, looked_max) do
  local id = found[i].id
  local task = load(id)
  local matches = task and task.user == user and (type == '' or task.type == type)
    and (fingerprint == '' or task.is_content and task.fingerprint == fingerprint)
    and (state == '' or task.state == state)
  if matches and (#records == max or bytes > BYTES_MAX) then
    return { 'listed', 'more', tostring(last), unpack(records) }
  end
  last = found[i].seq
  if matches then
    local record = shown(task)
    bytes = bytes + #record[2] + #(record[3] or '') + #record[4]
    records[#records + 1] = record
  end
end
local more = #found >= looked_max and 'more' or 'done'
return { 'listed', more, last and tostring(last) or '', unpack(records) }
