-- The store's clock, read once in a step. Milliseconds since the epoch.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- The same in microseconds.
local micros = clock[1] * 1000000 + clock[2]
-- The latest instant that RFC 3339 can show.
local LAST = 253402300799999
local function after(span)
  return math.min(now + span, LAST)
end
