-- A lease as its holder names it: ARGV[1] the task, ARGV[2] the user, ARGV[3] the fencing token.
local id, user, token = ARGV[1], ARGV[2], tonumber(ARGV[3])
local task = load(id)
if task and task.user ~= user then
  task = nil
end
local holds = task and task.held and task.token == token
local function lost()
  if task then
    tally(user, 'writes_fenced', 1)
  end
  return { 'lost' }
end
