//! The promises under faults: real processes are killed, paused and cut off while clients retry as they
//! should, and afterwards everything on record is compared with what was acknowledged and with what
//! happened outside.
//!
//! A trial prints its seed; `FAULTS_SEED` runs its choices again.

mod audit;
mod clients;
mod connection;
mod fault;
mod intent;
mod ledger;
mod modes;
mod nemesis;
mod ports;
mod process;
mod redis_node;
mod replica;
mod seed;
mod stage;
mod trace;
mod trial;
mod violation;
