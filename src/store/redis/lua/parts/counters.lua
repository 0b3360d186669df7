-- What is counted waits in one hash until it is folded into the buckets of all lengths.
local gathered = nil
local function count(what, by)
  if gathered then
    gathered[what] = (gathered[what] or 0) + by
  else
    redis.call('HINCRBY', KEYS[1] .. 'fresh', what, by)
  end
end
-- For steps that count the same for many tasks: what follows is added up and written at the end.
local function gather_counts()
  gathered = {}
end
local function write_counts()
  for what, by in pairs(gathered) do
    redis.call('HINCRBY', KEYS[1] .. 'fresh', what, by)
  end
  gathered = nil
end
local TALLY_BUCKET = 10000
local LATENCY_BUCKET = 3600000
local function tally(user, name, by)
  count('tally ' .. now - now % TALLY_BUCKET .. ' ' .. name .. ' ' .. user, by)
end
local function tally_accepted(user, type, state)
  count('accepted ' .. now - now % TALLY_BUCKET .. ' ' .. state .. ' ' .. user .. ' ' .. type, 1)
end
-- From one state to the other; '-' is neither.
local function gauge(user, type, from, to)
  count('moved ' .. from .. ' ' .. to .. ' ' .. user .. ' ' .. type, 1)
end
-- Buckets grow by a quarter of a power of two, from 0.01 ms.
local function latency(user, metric, took)
  local bucket = math.ceil(math.log(math.max(math.max(took, 0) / 0.01, 1)) / math.log(2) * 4)
  count('latency ' .. now - now % LATENCY_BUCKET .. ' ' .. metric .. ' ' .. bucket .. ' ' .. user, 1)
end
