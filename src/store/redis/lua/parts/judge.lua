-- What the records say about a submission. ARGV as in admit.lua.
local user, mode, fingerprint = ARGV[2], ARGV[4], ARGV[5]
local rule, key = ARGV[6], ARGV[8]
local max_resubmissions = tonumber(ARGV[9])
local other_rule, other_fingerprint = ARGV[17], ARGV[18]
-- Gives a word and what belongs to it:
--   new          resubmissions so far, nil when none are on record, and the time of the first failure
--   by-key       the task, until when the key is kept
--   by-content   the task
--   key-reused   the recorded rule and hashes of fields
--   key-forgotten
--   other-rule   the recorded rule: the caller is to say the fingerprint under it
local function judge()
  if key ~= '' then
    local bound = redis.call('HMGET', KEYS[3], 'task', 'fingerprint', 'rule', 'fields', 'bound_at')
    local task = bound[1] and load(bound[1])
    local ends = task and key_until(task, bound[5])
    if task and (not ends or now < ends) then
      if task.state == 'tombstone' then
        return 'key-forgotten'
      end
      local mine = fingerprint
      if bound[3] ~= rule then
        if bound[3] ~= other_rule then
          return 'other-rule', bound[3]
        end
        mine = other_fingerprint
      end
      if bound[2] ~= mine then
        return 'key-reused', bound[3], bound[4]
      end
      return 'by-key', task, ends
    end
  end
  if mode == 'none' then
    return 'new'
  end
  local task, resubmissions, first_failed_at = claimed(fingerprint)
  if not task then
    return 'new', first_failed_at and 0
  end
  local window = kept(task).window
  local word = standing(task, resubmissions, first_failed_at, window, max_resubmissions)
  if word == 'answers' then
    return 'by-content', task
  elseif word == 'resubmission' then
    return 'new', resubmissions + 1, first_failed_at
  end
  -- Earlier failures count on within the window of the task that failed.
  if first_failed_at and now < first_failed_at + window then
    return 'new', resubmissions, first_failed_at
  end
  return 'new', 0, nil
end
-- The first file that was neither uploaded before nor with this submission, or nil.
local FILES_FROM = 20
local function unknown_file()
  for i = FILES_FROM, #ARGV, 5 do
    if ARGV[i + 1] == '' and redis.call('EXISTS', KEYS[1] .. 'file:' .. ARGV[i] .. ':' .. user) == 0 then
      return ARGV[i]
    end
  end
end
