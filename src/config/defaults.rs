//! What holds for every task type that does not say otherwise.

use std::time::Duration;

use super::error::ConfigError;
use super::retention_table::RetentionTable;
use crate::domain::retry::RetryPolicy;
use crate::domain::task::Priority;
use crate::domain::task_type::{
    DedupMode, DedupPolicy, FilesRule, OnOlderVersion, RunnerSpec, TaskType,
};
use crate::egress::rules::Rules;

/// Set by variables such as `DEDUPLICATION_TTL` and by `[retention]`.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// How long a succeeded task answers for its fingerprint.
    pub window: Duration,
    /// Retries after the first attempt; also new tasks for a failed fingerprint within a window.
    pub retries: u32,
    pub first_delay: Duration,
    pub retention: RetentionTable,
    /// What a task must have waited for to count as one level more important.
    pub ageing: Duration,
    /// Which addresses requests may go to.
    pub egress: Rules,
    /// Whether there is a mail server.
    pub mails: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults {
            window: Duration::from_secs(3600),
            retries: 3,
            first_delay: Duration::from_secs(60),
            retention: RetentionTable::default(),
            ageing: Priority::AGEING,
            egress: Rules::default(),
            mails: false,
        }
    }
}

impl Defaults {
    pub const TIMEOUT: Duration = Duration::from_secs(3600);
    pub const LEASE: Duration = Duration::from_secs(30);
    /// The longest window that a submission may ask for, unless the type's own window is longer: 30 days.
    pub const WINDOW_MAX: Duration = Duration::from_secs(30 * 86_400);

    pub fn task_type(&self, name: &str, runner: RunnerSpec) -> Result<TaskType, ConfigError> {
        Ok(TaskType {
            name: name.to_owned(),
            description: String::new(),
            runner,
            params_schema: None,
            params_check: None,
            version: 1,
            require_key: false,
            files: FilesRule::Optional,
            dedup: DedupPolicy {
                mode: DedupMode::Return,
                by: Vec::new(),
                debounce: None,
                ignore: Vec::new(),
                file_name: false,
                group: None,
                window: self.window,
                window_max: self.window.max(Self::WINDOW_MAX),
                max_resubmissions: self.retries,
                on_older_version: OnOlderVersion::Rerun,
            },
            retry: RetryPolicy {
                max_attempts: self.retries.saturating_add(1),
                first_delay: self.first_delay,
                factor: RetryPolicy::FACTOR,
                max_delay: self.first_delay.max(RetryPolicy::MAX_DELAY),
                jitter: RetryPolicy::JITTER,
            },
            timeout: Self::TIMEOUT,
            lease: Self::LEASE,
            priority: Priority::DEFAULT,
            concurrency: None,
            concurrency_per_user: None,
            concurrency_key: None,
            rate: None,
            rate_per_user: None,
            ageing: self.ageing,
            retention: self.retention.retention(self.window)?,
        })
    }
}
