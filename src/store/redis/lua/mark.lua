#!lua
-- Only raises the replica's mark: the state is what it was told, and Redis takes writes.
-- KEYS[1] root of the partition
-- ARGV    nothing but the mark (parts/mark.lua)
-- Replies: marked, the mark
return { 'marked', redis.call('INCR', mark_key) }
