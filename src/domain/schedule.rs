//! What is submitted again and again, by the clock.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cadence::{Cadence, CadenceError};
use super::idempotency_key::IdempotencyKey;
use super::principal::UserId;
use super::task::TaskId;
use super::timestamp::Timestamp;

/// The user's name for a schedule: 1 to 64 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScheduleName(Arc<str>);

impl ScheduleName {
    pub const LENGTH_MAX: usize = 64;

    pub fn parse(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let valid = (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(legal);
        valid.then(|| ScheduleName(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names one firing, whichever replica submits it. No client can send such a key.
    pub fn key_of_firing(&self, at: Timestamp) -> IdempotencyKey {
        IdempotencyKey::of_service("schedule", &format!("{self}/{at}"))
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a user wants of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub cron: String,
    /// IANA's name.
    pub time_zone: String,
    #[serde(rename = "type")]
    pub task_type: String,
    pub params: Value,
    /// Who is told of the end of each task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    pub missed: Missed,
    pub paused: bool,
}

/// What becomes of firings that nobody was there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are left out.
    Skip,
    /// All together run once, as the newest of them.
    #[default]
    RunOnce,
    /// Each runs; of more than [`Schedule::CAUGHT_UP_MAX`] the newest.
    RunAll,
}

impl Missed {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "skip" => Some(Missed::Skip),
            "run_once" => Some(Missed::RunOnce),
            "run_all" => Some(Missed::RunAll),
            _ => None,
        }
    }
}

impl Plan {
    pub fn cadence(&self) -> Result<Cadence, CadenceError> {
        Cadence::parse(&self.cron, &self.time_zone)
    }

    /// What says when it fires: as long as that stays as it was, so does the next firing.
    pub fn timing(&self) -> String {
        match self.paused {
            true => String::new(),
            false => format!("{} in {}", self.cron, self.time_zone),
        }
    }
}

/// A firing that its task type did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When the firing was due.
    pub at: Timestamp,
    /// For the user.
    pub detail: String,
}

/// A schedule on record.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub user: UserId,
    pub name: ScheduleName,
    pub plan: Plan,
    /// Another one whenever the schedule changes or goes on.
    pub revision: u64,
    /// None while it is paused, and after its last firing.
    pub next_fire_at: Option<Timestamp>,
    pub last_fired_at: Option<Timestamp>,
    /// The task of the last firing.
    pub last_task: Option<TaskId>,
    /// What was wrong with a later one.
    pub last_refusal: Option<Refusal>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Schedule {
    /// Schedules that one user may have.
    pub const PER_USER_MAX: u64 = 1_000;
    /// Bytes of a schedule, as it is sent.
    pub const BYTES_MAX: usize = 64 * 1024;
    /// Revisions are below this: every store counts so far.
    pub const REVISION_MAX: u64 = 1 << 53;
    /// Missed firings that are made up for, at most.
    pub const CAUGHT_UP_MAX: usize = 1_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        let longest = "x".repeat(64);
        for good in ["nightly", "a.b-c_D9", &longest] {
            assert!(ScheduleName::parse(good).is_some(), "{good}");
        }
        let longer = "x".repeat(65);
        for bad in ["", "a b", "a/b", "ü", "a,b", "{p01}", &longer] {
            assert_eq!(ScheduleName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_key_of_a_firing_is_none_of_a_client() {
        let name = ScheduleName::parse("nightly").unwrap();
        let key = name.key_of_firing(Timestamp::from_ms(0));
        assert!(
            key.as_str()
                .ends_with("schedule/nightly/1970-01-01T00:00:00.000Z")
        );
        let quoted = format!("\"{key}\"");
        for sent in [key.as_str(), quoted.as_str()] {
            assert!(IdempotencyKey::parse(sent.as_bytes()).is_err(), "{sent}");
        }
    }
}
