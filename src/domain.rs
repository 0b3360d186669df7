//! Pure values and rules: no runtime, no HTTP, no store, no clock.

pub mod cadence;
pub mod callback;
pub mod digest;
pub mod event;
pub mod file;
pub mod fingerprint;
pub mod history;
pub mod idempotency_key;
pub mod json;
pub mod lease_id;
pub mod matching;
pub mod params_check;
pub mod period;
pub mod principal;
pub mod quota;
pub mod retry;
pub mod schedule;
pub mod schema;
pub mod standing;
pub mod stats;
pub mod submission;
pub mod task;
pub mod task_type;
pub mod timestamp;
pub mod webhook;
pub mod worker;
