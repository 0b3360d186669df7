use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a child may use. Whatever exceeds it is a permanent error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Address space, in bytes (512 MiB).
    pub memory_bytes: u64,
    /// Processor time, in seconds (60).
    pub cpu_seconds: u64,
    /// From start to end by the clock (300 s).
    pub wall_time: Duration,
    /// Of the result, in bytes (64 MiB).
    pub output_bytes: usize,
}

impl Limits {
    /// The slowest pace that is waited for; the parsers of tables are several times as fast.
    pub const INPUT_BYTES_PER_SECOND: u64 = 25 * 1024 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 * 1024 * 1024,
            cpu_seconds: 60,
            wall_time: Duration::from_secs(300),
            output_bytes: 64 * 1024 * 1024,
        }
    }
}
