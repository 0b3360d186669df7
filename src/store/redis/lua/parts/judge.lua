-- What the records say about a submission. KEYS and ARGV as in admit.lua.
-- Where in KEYS and ARGV a submission begins, counted from the end of the one before.
local KEYS_EACH, FILES_FROM, FILE_PARTS = 3, 5, 5
local id, task_record, key_record, text, files_from, files_to
local user, type, key, fingerprint, rule, file_kept, tags
local mode, max_resubmissions, priority_asked, priority, start, start_ms, open_max, user_max, ageing, slot, older, other_rule,
  other_fingerprint, fields, callback, callback_terms, matching, debounce_ms, debounce_max_ms
-- Turns to the submission that begins there. What follows is about that one.
local function turn_to(in_keys, in_argv)
  local _
  task_record, key_record = KEYS[in_keys], KEYS[in_keys + 1]
  id, text = ARGV[in_argv], ARGV[in_argv + 3]
  files_from = in_argv + FILES_FROM
  files_to = files_from + FILE_PARTS * ARGV[in_argv + 4] - 1
  user, type, key, fingerprint, rule, _, _, _, _, _, _, _, file_kept, tags = cmsgpack.unpack(ARGV[in_argv + 1])
  _, mode, max_resubmissions, priority_asked, priority, start, start_ms, open_max, user_max, ageing, slot, older, other_rule,
    other_fingerprint, fields, callback, callback_terms, matching, debounce_ms, debounce_max_ms = cmsgpack.unpack(ARGV[in_argv + 2])
end
-- A task of an older version of the type that answers, as long as it may still give a result or has given one.
local function of_older_version()
  for i = 1, older and #older or 0, 32 do
    local task, resubmissions, first_failed_at = claimed(older:sub(i, i + 31))
    if task and task.state ~= 'failed' and task.state ~= 'cancelled'
      and standing(task, resubmissions, first_failed_at, task.window, max_resubmissions) == 'answers' then
      return task
    end
  end
end
-- The task that throttles all that it matches. One that was cancelled throttles no more.
local function throttling()
  local newest = redis.call('ZRANGE', matching_key(matching), -1, -1)[1]
  local task = newest and load_if_whole(newest)
  if task and task.state ~= 'tombstone' and task.state ~= 'cancelled' and now < throttles_until(task) then
    return task
  end
end
-- Gives a word and what belongs to it:
--   new          resubmissions so far and the time of the first failure, nil when none are on record
--   by-key       the task, until when the key is kept
--   by-content   the task
--   by-values    the task, which throttles other content too
--   key-reused   the task, the recorded rule, hashes of fields when those are not the task's
--   key-forgotten
--   other-rule   the recorded rule: the caller is to say the fingerprint under it
local function judge()
  local bound = key and redis.call('GET', key_record)
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
  local throttles = mode == 'throttle' and throttling()
  if throttles then
    return throttles.is_content and throttles.fingerprint == fingerprint and 'by-content' or 'by-values', throttles
  end
  local task, resubmissions, first_failed_at = claimed(fingerprint)
  local word = task and standing(task, resubmissions, first_failed_at, task.window, max_resubmissions)
  local answering = word == 'answers' and task or of_older_version()
  if answering then
    return 'by-content', answering
  elseif word == 'resubmission' then
    return 'new', resubmissions + 1, first_failed_at
  end
  -- Earlier failures count on within the window of the task that failed.
  if task and first_failed_at and now < first_failed_at + task.window then
    return 'new', resubmissions, first_failed_at
  end
  return 'new'
end
-- The first file that was neither uploaded before nor with this submission, or nil.
local function unknown_file()
  for i = files_from, files_to, FILE_PARTS do
    if ARGV[i + 1] == '' and redis.call('EXISTS', KEYS[1] .. 'file:' .. ARGV[i] .. ':' .. user) == 0 then
      return ARGV[i]
    end
  end
end
