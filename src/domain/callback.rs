//! Who is told when a task ends, and what they are told.
//!
//! A callback is kept with its task. The step that ends the task makes a delivery of each: a task of a type of
//! its own, of the same user, so that it is retried, listed and redriven as all tasks are.

use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::digest::Sha256Digest;
use super::event::Changes;
use super::schema::Violation;
use super::task::{Outcome, Priority, Progress, State, Task, TaskError, TaskId};
use super::task_type::{Retention, TaskType};
use super::timestamp::Timestamp;

/// A URL that is told of a task's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// As the URL parser writes it, so that one address is one callback.
    pub url: String,
    pub terms: Terms,
}

/// How deliveries are treated, as their type said when the callback came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub priority: Priority,
    pub max_attempts: u32,
    pub retention: Retention,
}

impl Callback {
    /// The type of deliveries. Clients cannot submit it.
    pub const TASK_TYPE: &str = "deliver_webhook";

    /// A task has so many callbacks at most.
    pub const PER_TASK_MAX: usize = 16;

    /// The tag by which the deliveries of a task are found; its value is the task's id.
    pub const TAG: &str = "callback_of";

    /// To a URL that requests may be sent to, as `deliveries`, their type, says.
    pub fn to(text: &str, deliveries: &TaskType) -> Result<Self, Violation> {
        let url = Url::parse(text).map_or_else(|_| text.to_owned(), String::from);
        // What is judged is what is sent to.
        let wrong = deliveries.violations(&json!({ "url": url })).pop();
        if let Some(Violation { detail, .. }) = wrong {
            let pointer = "/callback_url".to_owned();
            return Err(Violation { pointer, detail });
        }
        Ok(Callback {
            url,
            terms: Terms {
                priority: deliveries.priority,
                max_attempts: deliveries.retry.max_attempts,
                retention: deliveries.retention,
            },
        })
    }
}

/// What became of a callback that a duplicate brought along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    Joins,
    /// The task has it already.
    Known,
    /// The task has as many as it may have.
    Full,
}

impl Joining {
    pub fn of(url: &str, callbacks: &[Callback]) -> Self {
        if callbacks.iter().any(|known| known.url == url) {
            Joining::Known
        } else if callbacks.len() >= Callback::PER_TASK_MAX {
            Joining::Full
        } else {
            Joining::Joins
        }
    }
}

/// The params of a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    pub url: String,
    pub task_id: String,
    pub end: End,
}

/// How a task stood at its end. What it gave is no part of it: a task that has succeeded does not run again, so
/// that its own record shows that for as long as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub state: State,
    pub attempt: u32,
    pub max_attempts: u32,
    pub started_at_ms: Option<i64>,
    pub finished_at_ms: i64,
    pub duplicates: u64,
    #[serde(default)]
    pub progress: Option<Progress>,
    #[serde(default)]
    pub error: Option<TaskError>,
}

impl End {
    /// The end of a task that has ended.
    pub fn of(task: &Task) -> Option<Self> {
        let finished_at = task.finished_at.filter(|_| task.state.is_ended())?;
        Some(End {
            state: task.state,
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            started_at_ms: task.started_at.map(Timestamp::as_ms),
            finished_at_ms: finished_at.as_ms(),
            duplicates: task.duplicates,
            progress: task.progress.clone(),
            error: task.error.clone(),
        })
    }

    /// What this end is called.
    pub fn event(&self) -> &'static str {
        match self.state {
            State::Succeeded => "task.succeeded",
            State::Failed => "task.failed",
            State::Cancelled => "task.cancelled",
            State::Scheduled | State::Queued | State::Running | State::Retrying => "task.changed",
        }
    }

    pub fn finished_at(&self) -> Timestamp {
        Timestamp::from_ms(self.finished_at_ms)
    }

    /// The task as it ended then, whatever has become of it since.
    pub fn shown_by(&self, task: Task) -> Task {
        let succeeded = self.state == State::Succeeded;
        let outcome = task
            .outcome
            .filter(|outcome| succeeded && !matches!(outcome, Outcome::Expired));
        Task {
            state: self.state,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            started_at: self.started_at_ms.map(Timestamp::from_ms),
            finished_at: Some(self.finished_at()),
            next_attempt_at: None,
            duplicates: self.duplicates,
            progress: self.progress.clone(),
            error: self.error.clone(),
            dedup_expires_at: task.dedup_expires_at.filter(|_| succeeded),
            outcome,
            changes: Changes::default(),
            ..task
        }
    }
}

/// The id of the delivery to `url` of the end that was the task's change number `revision`: the same however
/// often the step that makes it is repeated.
pub fn delivery_id(task: &TaskId, revision: u64, finished_at: Timestamp, url: &str) -> TaskId {
    let of = format!("{task} {revision} {} {url}", finished_at.as_ms());
    let digest = Sha256Digest::of(of.as_bytes()).to_string();
    task.of_same_owner(&digest)
}
