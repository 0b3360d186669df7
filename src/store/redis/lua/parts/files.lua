-- Files of users, the copies of their bytes, and who needs them.
local function file_key(user, sha256)
  return KEYS[1] .. 'file:' .. sha256 .. ':' .. user
end
local function file_expires(user, sha256, at)
  redis.call('HSET', file_key(user, sha256), 'expires_at', at)
  redis.call('ZADD', KEYS[1] .. 'file-expiry', at, sha256 .. ':' .. user)
end
-- The copy that counts: an older one wins over the one that came.
local function adopt(user, sha256, generation, size, name, media_type, expires_at)
  local key = file_key(user, sha256)
  local known = redis.call('HMGET', key, 'generation', 'size', 'refs', 'expires_at')
  if known[1] then
    if tonumber(known[3]) == 0 and tonumber(known[4]) < expires_at then
      file_expires(user, sha256, expires_at)
    end
    return known[1], known[2]
  end
  redis.call('HSET', key, 'generation', generation, 'size', size, 'refs', 0)
  if name ~= '' then
    redis.call('HSET', key, 'name', name)
  end
  if media_type ~= '' then
    redis.call('HSET', key, 'media_type', media_type)
  end
  redis.call('SADD', KEYS[1] .. 'blobs', sha256 .. '-' .. generation)
  file_expires(user, sha256, expires_at)
  return generation, size
end
local function refer(user, sha256)
  redis.call('HINCRBY', file_key(user, sha256), 'refs', 1)
  redis.call('HDEL', file_key(user, sha256), 'expires_at')
  redis.call('ZREM', KEYS[1] .. 'file-expiry', sha256 .. ':' .. user)
end
-- A key names the task until then, and with it the files: 'sha256:generation:size …'.
local function keep_files_until(task, at)
  for sha256 in string.gmatch(task.files or '', '(%x+):%x+:%d+') do
    local expires_at = redis.call('HGET', file_key(task.user, sha256), 'expires_at')
    if expires_at and tonumber(expires_at) < at then
      file_expires(task.user, sha256, at)
    end
  end
end
-- A task needs its files no more. They are kept as long as a key may name it, or its content: a repeat must
-- find what it names.
local function release_files(task)
  for sha256 in string.gmatch(task.files or '', '(%x+):%x+:%d+') do
    if redis.call('EXISTS', file_key(task.user, sha256)) == 1 then
      if redis.call('HINCRBY', file_key(task.user, sha256), 'refs', -1) <= 0 then
        file_expires(task.user, sha256, after(math.max(task.file_kept, task.key_kept, task.window)))
      end
    end
  end
end
