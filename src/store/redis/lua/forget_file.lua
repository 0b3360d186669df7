#!lua flags=allow-oom
-- Takes a copy off a user's record that no task reads, and that expires soon enough.
-- KEYS[1] root of the partition
-- ARGV[1] user  ARGV[2] sha256  ARGV[3] generation  ARGV[4] expires at this or earlier, ms
-- Replies: gone: now, or before · kept
local user, sha256, generation, latest = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local known = redis.call('HMGET', file_key(user, sha256), 'generation', 'refs', 'expires_at')
if known[1] ~= generation then
  return { 'gone' }
end
if tonumber(known[2]) ~= 0 or not known[3] or tonumber(known[3]) > latest then
  return { 'kept' }
end
redis.call('SREM', KEYS[1] .. 'blobs', sha256 .. '-' .. generation)
redis.call('DEL', file_key(user, sha256))
redis.call('ZREM', KEYS[1] .. 'file-expiry', sha256 .. ':' .. user)
return { 'gone' }
