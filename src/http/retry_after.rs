//! When it is worth while to ask for a task again.

use std::time::Duration;

use axum::http::HeaderValue;

use crate::domain::task::{State, Task};
use crate::domain::timestamp::Timestamp;

/// Whole seconds, at least one, until an unfinished task may have changed; none once it has ended.
pub fn of(task: &Task, now: Timestamp) -> Option<HeaderValue> {
    let due_at = match task.state {
        State::Scheduled | State::Retrying => task.next_attempt_at.or(task.scheduled_at),
        State::Queued | State::Running => None,
        State::Succeeded | State::Failed | State::Cancelled => return None,
    };
    let wait = due_at.map_or(Duration::ZERO, |at| at.since(now));
    Some(HeaderValue::from(
        wait.as_millis().div_ceil(1000).max(1) as u64
    ))
}
