-- What the records say about a submission. ARGV as in admit.lua.
local id = ARGV[1]
local user, type, key, fingerprint, rule, _, _, _, _, _, _, _, file_kept, tags = cmsgpack.unpack(ARGV[2])
local mode, max_resubmissions, priority_asked, priority, start, start_ms, open_max, other_rule, other_fingerprint,
  fields = cmsgpack.unpack(ARGV[3])
-- Gives a word and what belongs to it:
--   new          resubmissions so far and the time of the first failure, nil when none are on record
--   by-key       the task, until when the key is kept
--   by-content   the task
--   key-reused   the task, the recorded rule, hashes of fields when those are not the task's
--   key-forgotten
--   other-rule   the recorded rule: the caller is to say the fingerprint under it
local function judge()
  local bound = key and redis.call('GET', KEYS[3])
  if bound then
    local bound_id, bound_at, bound_fingerprint, bound_rule, bound_fields = cmsgpack.unpack(bound)
    local task = load(bound_id)
    local ends = task and key_until(task, bound_at or task.created_at)
    if task and (not ends or now < ends) then
      if task.state == 'tombstone' then
        return 'key-forgotten'
      end
      bound_rule = bound_rule or task.rule
      local mine = fingerprint
      if bound_rule ~= rule then
        if bound_rule ~= other_rule then
          return 'other-rule', bound_rule
        end
        mine = other_fingerprint
      end
      if (bound_fingerprint or task.fingerprint) ~= mine then
        return 'key-reused', task, bound_rule, bound_fields
      end
      return 'by-key', task, ends
    end
  end
  if mode == 'none' then
    return 'new'
  end
  local task, resubmissions, first_failed_at = claimed(fingerprint)
  if not task then
    return 'new'
  end
  local word = standing(task, resubmissions, first_failed_at, task.window, max_resubmissions)
  if word == 'answers' then
    return 'by-content', task
  elseif word == 'resubmission' then
    return 'new', resubmissions + 1, first_failed_at
  end
  -- Earlier failures count on within the window of the task that failed.
  if first_failed_at and now < first_failed_at + task.window then
    return 'new', resubmissions, first_failed_at
  end
  return 'new'
end
-- The first file that was neither uploaded before nor with this submission, or nil.
local FILES_FROM = 5
local function unknown_file()
  for i = FILES_FROM, #ARGV, 5 do
    if ARGV[i + 1] == '' and redis.call('EXISTS', KEYS[1] .. 'file:' .. ARGV[i] .. ':' .. user) == 0 then
      return ARGV[i]
    end
  end
end
