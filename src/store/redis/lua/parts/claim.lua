-- The claim on a content, packed: the newest task that it made, resubmissions so far, time of the first failure.
-- Named by the fingerprint in hexadecimal digits, as people read it.
local function hexadecimal(digest)
  return string.format('%08x%08x%08x%08x%08x%08x%08x%08x', struct.unpack('>I4I4I4I4I4I4I4I4', digest))
end
local function claim_key(fingerprint)
  return KEYS[1] .. 'claim:' .. hexadecimal(fingerprint)
end
-- Gives the task's id and the rest, or nothing.
local function read_claim(fingerprint)
  local packed = redis.call('GET', claim_key(fingerprint))
  if packed then
    return cmsgpack.unpack(packed)
  end
end
local function write_claim(fingerprint, id, resubmissions, first_failed_at)
  redis.call('SET', claim_key(fingerprint), cmsgpack.pack(id, resubmissions, first_failed_at))
end
