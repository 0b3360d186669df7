-- What the newest task of a content means for the next submission of it: 'answers', 'resubmission' or 'free'.
local function standing(task, claim_resubmissions, first_failed_at, window, max_resubmissions)
  if not is_ended(task) then
    return 'answers'
  elseif task.state == 'succeeded' then
    return task.dedup_expires_at and now < tonumber(task.dedup_expires_at) and 'answers' or 'free'
  elseif task.state == 'cancelled' then
    return task.held and 'answers' or 'free'
  elseif task.state == 'failed' and first_failed_at and now < first_failed_at + window then
    return claim_resubmissions < max_resubmissions and 'resubmission' or 'answers'
  end
  return 'free'
end
-- The claim on a content: its task, or nil, and what is known of its failures.
local function claimed(fingerprint)
  local claim = redis.call('HMGET', KEYS[1] .. 'claim:' .. fingerprint, 'task', 'resubmissions', 'first_failed_at')
  local task = claim[1] and load(claim[1])
  if task and task.state == 'tombstone' then
    task = nil
  end
  return task, tonumber(claim[2] or 0), claim[3] and tonumber(claim[3])
end
