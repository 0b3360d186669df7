#!lua flags=no-writes
-- Only looks at the replica's mark: what is not found here was not lost, as far as the replica was told.
-- KEYS[1] root of the partition
-- ARGV    nothing but the mark (parts/mark.lua)
-- Replies: present
return { 'present' }
