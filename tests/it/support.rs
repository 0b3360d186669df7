//! What the tests share: the running service, a client, bytes on the wire, and the outside world.

pub mod certificates;
pub mod client;
pub mod deadline;
pub mod events;
pub mod leasing;
pub mod outside;
pub mod python;
pub mod redis;
pub mod redis_cluster;
pub mod redis_sentinels;
pub mod replicas;
pub mod service;
pub mod signature;
pub mod smtp;
pub mod store;
pub mod wire;
pub mod world;

pub use client::{Client, Reply};
pub use service::{Service, Setup};
pub use world::World;
