//! JustOnce: submit a task or a file as often as you like; it runs just once.

pub mod app;
pub mod blobs;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod limits;
pub mod runner;
pub mod runners;
pub mod store;
pub mod worker;
pub mod worker_gauge;
