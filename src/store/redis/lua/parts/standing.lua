-- What the newest task of a content means for the next submission of it: 'answers', 'resubmission' or 'free'.
local function standing(task, resubmissions, first_failed_at, window, max_resubmissions)
  if not is_ended(task) then
    return 'answers'
  elseif task.state == 'succeeded' then
    return task.is_content and now < answers_until(task) and 'answers' or 'free'
  elseif task.state == 'cancelled' then
    return task.held and 'answers' or 'free'
  elseif task.state == 'failed' and first_failed_at and now < first_failed_at + window then
    return resubmissions < max_resubmissions and 'resubmission' or 'answers'
  end
  return 'free'
end
-- The task that has a content, or nil, and what is known of its failures.
local function claimed(fingerprint)
  local id, resubmissions, first_failed_at = read_claim(fingerprint)
  local task = id and load(id)
  if task and task.state == 'tombstone' then
    task = nil
  end
  return task, resubmissions or 0, first_failed_at
end
