-- A task as its owner names it: ARGV[1] the task, ARGV[2] the user.
local id, user = ARGV[1], ARGV[2]
local task = load(id)
local missing = nil
if not task or task.user ~= user then
  missing = 'unknown'
elseif task.state == 'tombstone' then
  missing = 'forgotten'
end
