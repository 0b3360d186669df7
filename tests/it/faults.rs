//! The promises under faults: real processes are killed, paused and cut off while clients retry as they
//! should, and afterwards everything on record is compared with what was acknowledged and with what
//! happened outside.
//!
//! A trial prints its seed; `FAULTS_SEED` runs its choices again.

mod audit;
mod balancer;
mod clients;
mod completion;
mod connection;
mod day;
mod errands;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fault;
mod intent;
mod leases;
mod ledger;
mod lost_replies;
mod modes;
mod naive;
mod nemesis;
mod network;
mod operator;
mod ports;
mod power;
mod process;
mod redis_cluster;
mod redis_node;
mod redis_sentinels;
mod relay;
mod replica;
mod resp;
mod resp_proxy;
mod savings;
mod seed;
#[cfg(feature = "seeded-faults")]
mod seeded;
mod setting;
mod show;
mod soak;
mod stage;
mod trace;
mod trial;
mod violation;
mod work;
