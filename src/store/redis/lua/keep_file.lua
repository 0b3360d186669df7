#!lua
-- Keeps an uploaded file that no task names yet, unless an older copy is on record.
-- KEYS[1] root of the partition
-- ARGV[1] user  ARGV[2] sha256  ARGV[3] generation  ARGV[4] size, bytes  ARGV[5] name, or nothing
-- ARGV[6] media type, or nothing  ARGV[7] kept so long, ms
-- Replies: kept · unknown: it came without a copy, and there is none
local user, sha256, generation, size = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if generation == '' and redis.call('EXISTS', file_key(user, sha256)) == 0 then
  return { 'unknown' }
end
local name, media_type, retention = ARGV[5], ARGV[6], tonumber(ARGV[7])
adopt(user, sha256, generation, size, name, media_type, after(retention))
return { 'kept' }
