//! The only place that knows HTTP.

pub mod api;
pub mod api_key;
pub mod caller;
pub mod code;
pub mod problem;
