//! Power cuts: the disk of a service cut back to what was synced, and whatever a disk may keep beside that.
//!
//! A shim below the real binary (`shim.c`) logs what is written, named and synced. For any place in that log the
//! images are built that a power cut there may leave; each is opened by the code of the service, and must hold what was
//! acknowledged before.

mod disk;
mod expected;
mod image;
mod inspection;
mod lies;
mod load;
mod log;
mod redis_images;
mod redis_losses;
mod redis_server;
mod shim;
mod trials;
