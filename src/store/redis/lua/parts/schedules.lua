-- A schedule's fields: type · plan, JSON · timing · put, the revision that its user gave it · revision · next, when it
-- fires · due, when to look at it · fired_at and task of the last firing · refused_at and refusal of a later one ·
-- created_at · updated_at. Times in ms, empty for none.
local function schedule_key(user, name)
  return root .. 'schedule:' .. user .. ',' .. name
end
-- Names of a user's schedules.
local function schedules_key(user)
  return root .. 'schedules:' .. user
end
-- User and name of a type's schedules, by when they are due. Neither holds a comma.
local function schedules_due_key(type)
  return root .. 'schedules-due:' .. type
end
-- Another one whenever something here may be due sooner than it was.
local schedules_version_key = root .. 'schedules-version'
-- What somebody has put in its place is no schedule.
local function is_hash(key)
  return redis.call('TYPE', key).ok == 'hash'
end
