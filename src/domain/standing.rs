//! Whether a task still answers for its fingerprint.

use std::time::Duration;

use super::task::{State, Task};
use super::timestamp::Timestamp;

/// What the newest task of a fingerprint means for the next submission of the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The submission is a duplicate of it.
    Answers,
    /// It failed, and the content may be tried anew as one more resubmission.
    Resubmission,
    /// The content is new again.
    Free,
}

/// What is known of earlier failures of the same content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    pub first_failed_at: Option<Timestamp>,
    /// New tasks made since then.
    pub resubmissions: u32,
}

impl Standing {
    /// `held`: an attempt may still be running, which for a cancelled task blocks its content until the
    /// attempt confirms or its lease ends. `window` counts from the first failure.
    pub fn of(
        task: &Task,
        held: bool,
        failures: Failures,
        window: Duration,
        max: u32,
        now: Timestamp,
    ) -> Self {
        match task.state {
            State::Scheduled | State::Queued | State::Running | State::Retrying => {
                Standing::Answers
            }
            State::Succeeded if task.dedup_expires_at.is_some_and(|end| now < end) => {
                Standing::Answers
            }
            State::Succeeded => Standing::Free,
            State::Cancelled if held => Standing::Answers,
            State::Cancelled => Standing::Free,
            State::Failed => match failures.first_failed_at {
                Some(first) if now < first.plus(window) && failures.resubmissions < max => {
                    Standing::Resubmission
                }
                Some(first) if now < first.plus(window) => Standing::Answers,
                Some(_) | None => Standing::Free,
            },
        }
    }
}
