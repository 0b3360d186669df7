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

impl Failures {
    /// Whether they still count: within one dedup window of the task that failed, from the first failure.
    fn count(&self, window: Duration, now: Timestamp) -> bool {
        self.first_failed_at
            .is_some_and(|first| now < first.plus(window))
    }

    /// What the next task of the content starts with.
    pub fn carried_over(self, standing: Standing, window: Duration, now: Timestamp) -> Failures {
        match standing {
            Standing::Resubmission => Failures {
                resubmissions: self.resubmissions + 1,
                ..self
            },
            Standing::Answers | Standing::Free if self.count(window, now) => self,
            Standing::Answers | Standing::Free => Failures::default(),
        }
    }
}

impl Standing {
    /// `held`: an attempt may still be running, which for a cancelled task blocks its content until the
    /// attempt confirms or its lease ends. `window` is the task's own, `max` the resubmissions that its type allows.
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
            State::Failed if !failures.count(window, now) => Standing::Free,
            State::Failed if failures.resubmissions < max => Standing::Resubmission,
            State::Failed => Standing::Answers,
        }
    }
}
