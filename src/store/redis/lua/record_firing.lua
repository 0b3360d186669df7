#!lua
-- Lets a schedule go on after a firing, unless it went on, or was changed, before.
-- KEYS[1] root of the partition
-- ARGV[1] user  ARGV[2] name  ARGV[3] revision as it was  ARGV[4] revision from now on
-- ARGV[5] next firing, ms, or nothing  ARGV[6] look at it again no sooner than so long from now, ms
-- ARGV[7] what became of a firing: submitted, refused, or nothing if there was none  ARGV[8] when it was due, ms
-- ARGV[9] its task, or nothing; or why it was refused
-- Replies: recorded · passed
local user, name, was, revision, next = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local put_off, became, fired_at, about = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local key, member = schedule_key(user, name), user .. ',' .. name
local known = is_hash(key) and redis.call('HMGET', key, 'revision', 'type', 'due') or {}
-- This call's first try may have gone unanswered.
if known[1] == revision then
  return { 'recorded' }
end
if known[1] ~= was or not known[2] then
  return { 'passed' }
end
local due = ''
if next == '' then
  redis.call('ZREM', schedules_due_key(known[2]), member)
else
  local at = math.max(tonumber(next), after(put_off))
  due = string.format('%.0f', at)
  redis.call('ZADD', schedules_due_key(known[2]), due, member)
  -- Others have looked meanwhile, and expect it when it was put off to.
  if at < (tonumber(known[3]) or 0) then
    redis.call('SET', schedules_version_key, revision)
  end
end
redis.call('HSET', key, 'revision', revision, 'next', next, 'due', due)
if became == 'submitted' then
  redis.call('HSET', key, 'fired_at', fired_at, 'task', about)
  redis.call('HDEL', key, 'refused_at', 'refusal')
elseif became == 'refused' then
  redis.call('HSET', key, 'refused_at', fired_at, 'refusal', about)
end
return { 'recorded' }
