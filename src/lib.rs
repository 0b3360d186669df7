//! JustOnce: submit a task or a file as often as you like; it runs just once.

pub mod api_key;
pub mod blobs;
pub mod config;
pub mod domain;
pub mod http;
pub mod limits;
pub mod pool_gauge;
pub mod runner;
pub mod runners;
pub mod store;
pub mod worker;
