#!lua flags=no-writes
-- What admit.lua would decide of one submission; changes nothing. KEYS and ARGV as there.
-- Replies: new · by-key, record, until or nothing · by-content, record · by-values, record · key-reused, rule, fields or nothing, record
--   · key-forgotten · other-rule, rule · file-unknown, sha256
turn_to(2, 1)
local word, found, detail, more = judge()
if word == 'by-key' then
  return { word, shown(found), detail or '' }
elseif word == 'by-content' or word == 'by-values' then
  return { word, shown(found) }
elseif word == 'key-reused' then
  return { word, detail, more or '', shown(found) }
elseif word == 'new' then
  local unknown = unknown_file()
  return unknown and { 'file-unknown', unknown } or { word }
end
return { word, found }
