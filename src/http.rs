//! The only place that knows HTTP.

pub mod code;
pub mod problem;
