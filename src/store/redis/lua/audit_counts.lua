#!lua flags=no-writes
-- Holds counters against what they count: lists by user and state, and the tasks that have not ended.
-- KEYS[1]  root of the partition
-- ARGV[1…] users
-- Replies: audited, what is wrong (a line each), tasks of everyone as they are counted, by state,
--   tasks in the lists of these users
local STATES = { 'scheduled', 'queued', 'running', 'retrying', 'succeeded', 'failed', 'cancelled' }
local fresh = {}
local function add(user, state, by)
  if state ~= '-' then
    fresh[user .. ' ' .. state] = (fresh[user .. ' ' .. state] or 0) + by
    fresh[' ' .. state] = (fresh[' ' .. state] or 0) + by
  end
end
-- What is not folded yet (fold.lua).
local waiting = redis.call('HGETALL', root .. 'fresh')
for i = 1, #waiting, 2 do
  local state, user = string.match(waiting[i], '^accepted %d+ (%S+) (%S+) ')
  if state then
    add(user, state, waiting[i + 1])
  else
    local from, to, whose = string.match(waiting[i], '^moved (%S+) (%S+) (%S+) ')
    if from then
      add(whose, from, -waiting[i + 1])
      add(whose, to, waiting[i + 1])
    end
  end
end
local function counted(user)
  local sums = {}
  for _, state in ipairs(STATES) do
    sums[state] = fresh[user .. ' ' .. state] or 0
  end
  local gauges = redis.call('HGETALL', root .. 'gauge:' .. user)
  for i = 1, #gauges, 2 do
    local state = string.match(gauges[i], '^(%S+) ')
    sums[state] = (sums[state] or 0) + gauges[i + 1]
  end
  return sums
end
local faults = {}
local function compare(what, count, with)
  if count ~= with then
    faults[#faults + 1] =
      string.format('%s (%.0f for %.0f): the counter does not agree with what is counted', what, count, with)
  end
end
local listed = {}
for _, user in ipairs(ARGV) do
  local sums = counted(user)
  for i, state in ipairs(STATES) do
    local size = redis.call('ZCARD', list_key(state, user))
    compare('tasks of ' .. user .. ', state ' .. state, sums[state], size)
    listed[i] = (listed[i] or 0) + size
  end
end
local everyone = counted('')
local unfinished = everyone.scheduled + everyone.queued + everyone.running + everyone.retrying
compare('unfinished tasks', tonumber(redis.call('GET', root .. 'open') or 0), unfinished)
local told = {}
for i, state in ipairs(STATES) do
  told[i], listed[i] = string.format('%.0f', everyone[state]), string.format('%.0f', listed[i] or 0)
end
return { 'audited', faults, told, listed }
