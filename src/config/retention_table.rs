//! `[retention]` of the configuration file, and of each task type.

use std::time::Duration;

use serde::Deserialize;

use super::error::ConfigError;
use crate::domain::task_type::Retention;

/// Whole seconds after a task's end; what is absent stays as it was.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionTable {
    key_seconds: Option<u64>,
    result_seconds: Option<u64>,
    task_seconds: Option<u64>,
    failed_task_seconds: Option<u64>,
    file_seconds: Option<u64>,
}

impl RetentionTable {
    /// What this table leaves out, as the other says.
    pub fn or(self, other: RetentionTable) -> RetentionTable {
        RetentionTable {
            key_seconds: self.key_seconds.or(other.key_seconds),
            result_seconds: self.result_seconds.or(other.result_seconds),
            task_seconds: self.task_seconds.or(other.task_seconds),
            failed_task_seconds: self.failed_task_seconds.or(other.failed_task_seconds),
            file_seconds: self.file_seconds.or(other.file_seconds),
        }
    }

    /// A result outlives its key and the dedup window: otherwise a replay would have no answer.
    /// Raised when nobody has said how long it is kept, refused when someone has said less.
    pub fn retention(self, window: Duration) -> Result<Retention, ConfigError> {
        let usual = Retention::default();
        let span = |given: Option<u64>, usual| given.map_or(usual, Duration::from_secs);
        let mut retention = Retention {
            key: span(self.key_seconds, usual.key),
            result: span(self.result_seconds, usual.result),
            task: span(self.task_seconds, usual.task),
            failed_task: span(self.failed_task_seconds, usual.failed_task),
            file: span(self.file_seconds, usual.file),
        };
        let needed = retention.key.max(window);
        if self.result_seconds.is_some() && retention.result < needed {
            return Err(ConfigError::new(format!(
                "result_seconds ({}) is below the key's retention or the dedup window ({})",
                retention.result.as_secs(),
                needed.as_secs()
            )));
        }
        retention.result = retention.result.max(needed);
        Ok(retention)
    }
}
