//! Ended tasks that this replica answers duplicates from, for a moment after Redis has confirmed that
//! nothing was taken back.
//!
//! Only succeeded tasks are remembered, and all that can take one away before its time is to forget it.
//! That raises a count of its partition, and is answered only after [`HOLDS_FOR`]: by then no replica
//! answers any more from what it was told before.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::keys::Partition;
use crate::domain::fingerprint::{Fingerprint, FingerprintRule};
use crate::domain::task::{Outcome, State, Task, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::seeded_faults::SeededFault;
use crate::store::ended::{EndedTask, EndedTasks, Hit, Name};
use crate::store::{Admission, MatchedBy};

/// What Redis has confirmed holds for so long, from when it was asked.
pub const HOLDS_FOR: Duration = Duration::from_millis(250);

/// A task, as of the partition's count of changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndedId {
    pub task: TaskId,
    changes: u64,
}

pub struct Memory {
    tasks: EndedTasks<EndedId>,
    confirmed: Vec<Mutex<Option<Confirmed>>>,
}

/// What the last answer of a partition said.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    /// Before Redis was asked.
    asked_at: Instant,
    /// Redis's clock in its answer.
    now: Timestamp,
    changes: u64,
}

/// A duplicate's answer, and what it was asked and found under.
pub struct Answered<'a> {
    pub asked_at: Instant,
    pub now: Timestamp,
    pub changes: u64,
    pub matched_by: MatchedBy,
    pub task: &'a Task,
    pub run_time: Duration,
    pub window: Duration,
    /// With a key: what the key was recorded with, and until when it is kept.
    pub recorded: Option<(Fingerprint, FingerprintRule)>,
    pub key_expires_at: Option<Timestamp>,
}

impl Memory {
    pub fn new(partitions: usize) -> Self {
        Memory {
            tasks: EndedTasks::default(),
            confirmed: (0..partitions).map(|_| Mutex::default()).collect(),
        }
    }

    /// The task that this is a duplicate of, if it is remembered and surely still there; and Redis's time,
    /// which may be a little earlier.
    pub fn answer(
        &self,
        admission: &Admission,
        partition: Partition,
    ) -> Option<(Hit<EndedId>, Timestamp)> {
        let confirmed = (*self.confirmed(partition)?)?;
        let age = confirmed.asked_at.elapsed();
        if age >= HOLDS_FOR && !SeededFault::RedisRememberedTooLong.is_on() {
            return None;
        }
        let now = confirmed.now.plus(age);
        let hit = self.tasks.answer(admission, now)?;
        (hit.remembered.id.changes == confirmed.changes).then_some((hit, now))
    }

    pub fn remember(&self, admission: &Admission, partition: Partition, answered: Answered<'_>) {
        let Answered {
            asked_at,
            now,
            changes,
            matched_by,
            task,
            run_time,
            window,
            recorded,
            key_expires_at,
        } = answered;
        let is_whole = !matches!(task.outcome, Some(Outcome::Expired) | None);
        if task.state != State::Succeeded || !is_whole {
            return;
        }
        let named = match (matched_by, &admission.key) {
            (MatchedBy::IdempotencyKey, Some(key)) => {
                let name = Name::Key(admission.user.clone(), key.clone());
                key_expires_at.map(|until| (name, until))
            }
            // Whether an older version's task answers is asked anew each time.
            (MatchedBy::Fingerprint, _) if task.fingerprint != Some(admission.fingerprint) => None,
            (MatchedBy::Fingerprint, _) => {
                let name = Name::Fingerprint(admission.user.clone(), admission.fingerprint);
                task.dedup_expires_at.map(|until| (name, until))
            }
            // What throttles is asked anew each time.
            (MatchedBy::DedupBy, _) | (MatchedBy::IdempotencyKey, None) => None,
        };
        let Some((name, until)) = named else { return };
        self.confirm(
            partition,
            Confirmed {
                asked_at,
                now,
                changes,
            },
        );
        self.tasks.remember(EndedTask {
            id: EndedId {
                task: task.id.clone(),
                changes,
            },
            task: task.clone(),
            run_time,
            window,
            name,
            recorded,
            key_expires_at,
            until,
        });
    }

    fn confirm(&self, partition: Partition, confirmed: Confirmed) {
        if let Some(mut known) = self.confirmed(partition) {
            let is_news = known.is_none_or(|known| known.asked_at < confirmed.asked_at);
            if is_news {
                *known = Some(confirmed);
            }
        }
    }

    fn confirmed(&self, partition: Partition) -> Option<MutexGuard<'_, Option<Confirmed>>> {
        let confirmed = self.confirmed.get(partition.index())?;
        Some(confirmed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
