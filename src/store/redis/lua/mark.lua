#!lua
-- Only raises the replica's mark: the state is what it was told, and Redis takes writes.
-- KEYS[1] root of the partition
-- ARGV    nothing but the mark (mark.lua)
-- Replies: marked
return { 'marked' }
