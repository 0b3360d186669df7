//! What is to be done, and where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::Changes;
use super::file::{BlobName, File};
use super::fingerprint::Fingerprint;
use super::principal::UserId;
use super::timestamp::Timestamp;

/// An opaque task id: 16 bits of the user's hash, so that any store finds the task in one step,
/// and 122 random bits. Written as 36 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TaskId(Arc<str>);

impl TaskId {
    pub fn random(user: &UserId) -> Self {
        let random = uuid::Uuid::new_v4().simple();
        TaskId(format!("{}{random}", Self::owner_of(user)).into())
    }

    /// `None` for what can be no id of ours; such a task is unknown.
    pub fn parse(text: &str) -> Option<Self> {
        let valid =
            text.len() == 36 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| TaskId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What all ids of one user begin with, and those of some others.
    pub fn owner(&self) -> &str {
        self.0.get(..4).unwrap_or_default()
    }

    /// The id of another task of the same user, of these hexadecimal digits; 32 of them count.
    pub fn of_same_owner(&self, digits: &str) -> Self {
        let digits = digits.get(..32).unwrap_or_default();
        TaskId(format!("{}{digits:0>32}", self.owner()).into())
    }

    /// What the ids of this user begin with.
    pub fn owner_of(user: &UserId) -> String {
        let hash = super::digest::Sha256Digest::of(user.as_str().as_bytes());
        let [high, low, ..] = *hash.as_bytes();
        format!("{high:02x}{low:02x}")
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `scheduled` → `queued` → `running` → `succeeded` | `retrying` (→ `queued`) | `failed` | `cancelled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for its start time.
    Scheduled,
    Queued,
    Running,
    /// Waits for its next attempt.
    Retrying,
    Succeeded,
    /// Attempts used up, or a permanent error: the dead letters.
    Failed,
    Cancelled,
}

impl State {
    pub const ALL: [State; 7] = [
        State::Scheduled,
        State::Queued,
        State::Running,
        State::Retrying,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Queued => "queued",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    pub fn is_ended(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }
}

/// How important a task is: 0 goes first, 9 last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    pub const DEFAULT: Priority = Priority(4);
    pub const LAST: u8 = 9;
    /// A task that has waited for so long counts as one level more important, where nothing else is set.
    pub const AGEING: Duration = Duration::from_secs(60);

    pub fn new(value: u64) -> Option<Self> {
        u8::try_from(value)
            .ok()
            .filter(|&v| v <= Self::LAST)
            .map(Priority)
    }

    pub fn value(self) -> u8 {
        self.0
    }
}

/// Proves that its holder has the newest right to run a task. Grows with every lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

/// How far an attempt has come, as its runner tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub done: f64,
    pub total: Option<f64>,
    pub message: Option<String>,
}

/// Why an attempt did not succeed; texts are for the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// A kebab-case word that programs can tell errors apart by.
    pub code: String,
    pub message: String,
    /// The attempt that met it, from 1.
    pub attempt: u32,
    /// Whether another attempt could not help.
    pub permanent: bool,
}

/// What a succeeded task gave.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The JSON bytes as the runner gave them.
    Inline(Arc<RawValue>),
    /// Above the limit for results in records: kept in blob storage.
    Blob { name: BlobName, size: u64 },
    /// The retention of the result is over.
    Expired,
}

/// A task as the store holds it.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: TaskId,
    pub task_type: String,
    pub state: State,
    pub user: UserId,
    /// None for submissions that asked for no deduplication by content.
    pub fingerprint: Option<Fingerprint>,
    pub params: Arc<RawValue>,
    pub files: Vec<File>,
    pub priority: Priority,
    pub tags: BTreeMap<String, String>,
    /// Attempts leased so far.
    pub attempt: u32,
    /// The attempt that will be the last; a redrive raises it.
    pub max_attempts: u32,
    pub progress: Option<Progress>,
    pub created_at: Timestamp,
    /// The start time that was asked for.
    pub scheduled_at: Option<Timestamp>,
    /// When the newest attempt began.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub next_attempt_at: Option<Timestamp>,
    /// Until when a succeeded task answers for its fingerprint.
    pub dedup_expires_at: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    pub error: Option<TaskError>,
    /// Duplicates that were suppressed.
    pub duplicates: u64,
    /// The task that has taken its place.
    pub superseded_by: Option<TaskId>,
    /// Until when it answers for all that it matches, whatever becomes of it.
    pub throttles_until: Option<Timestamp>,
    /// What has happened to it so far.
    pub changes: Changes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_user_share_their_first_digits_only() {
        let user = UserId::parse("user123").unwrap();
        let (one, other) = (TaskId::random(&user), TaskId::random(&user));
        assert_eq!(one.as_str()[..4], other.as_str()[..4]);
        assert_ne!(one, other);
        assert_eq!(TaskId::parse(one.as_str()), Some(one));
        assert_eq!(TaskId::parse("../x"), None);
    }

    #[test]
    fn names_of_states_are_the_ones_on_the_wire() {
        for state in State::ALL {
            assert_eq!(State::parse(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
