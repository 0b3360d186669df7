//! The only place that knows HTTP.

pub mod api;
pub mod caller;
pub mod code;
pub mod problem;
