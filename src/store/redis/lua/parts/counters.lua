-- What is counted waits in one hash until it is folded into the buckets of all lengths.
local function count(what, by)
  redis.call('HINCRBY', KEYS[1] .. 'fresh', what, by)
end
local TALLY_BUCKET = 10000
local LATENCY_BUCKET = 3600000
local function tally(user, name, by)
  count(string.format('tally %.0f %s %s', now - now % TALLY_BUCKET, name, user), by)
end
local function gauge(user, type, state, by)
  count('gauge ' .. state .. ' ' .. user .. ' ' .. type, by)
end
-- Buckets grow by a quarter of a power of two, from 0.01 ms.
local function latency(user, metric, took)
  local bucket = math.ceil(math.log(math.max(math.max(took, 0) / 0.01, 1)) / math.log(2) * 4)
  count(string.format('latency %.0f %s %d %s', now - now % LATENCY_BUCKET, metric, bucket, user), 1)
end
