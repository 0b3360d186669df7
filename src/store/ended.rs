//! Ended tasks that duplicates are answered from without a step. Each store says when an answer from
//! memory is as good as one of its own.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::domain::fingerprint::{Fingerprint, FingerprintRule};
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::task::{Outcome, Task};
use crate::domain::task_type::DedupMode;
use crate::domain::timestamp::Timestamp;
use crate::store::{Admission, MatchedBy};

/// Bytes of tasks that are remembered at most.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Tasks with larger results are read from the database.
const TASK_BYTES_MAX: usize = 256 * 1024;

/// Names of ended tasks that are remembered at most.
const NAMES_MAX: u64 = 100_000;

/// `Id` is what the store calls a task.
pub struct EndedTasks<Id> {
    tasks: Cache<Id, Arc<Remembered<Id>>>,
    names: Cache<Name, Arc<Answer<Id>>>,
}

/// What an ended task answers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    Key(UserId, IdempotencyKey),
    Fingerprint(UserId, Fingerprint),
}

struct Answer<Id> {
    id: Id,
    /// With a key: what the key was recorded with.
    recorded: Option<(Fingerprint, FingerprintRule)>,
    key_expires_at: Option<Timestamp>,
    /// The answer holds until then.
    until: Timestamp,
}

pub struct Remembered<Id> {
    pub id: Id,
    pub task: Task,
    pub run_time: Duration,
    pub window: Duration,
    duplicates: AtomicU64,
}

/// An ended task, and one name that it answered to.
pub struct EndedTask<Id> {
    pub id: Id,
    pub task: Task,
    pub run_time: Duration,
    pub window: Duration,
    pub name: Name,
    pub recorded: Option<(Fingerprint, FingerprintRule)>,
    pub key_expires_at: Option<Timestamp>,
    pub until: Timestamp,
}

/// A duplicate answered from memory.
pub struct Hit<Id> {
    pub remembered: Arc<Remembered<Id>>,
    pub matched_by: MatchedBy,
    pub key_expires_at: Option<Timestamp>,
}

impl<Id: Hash + Eq + Clone + Send + Sync + 'static> Default for EndedTasks<Id> {
    fn default() -> Self {
        let weigh = |_: &Id, task: &Arc<Remembered<Id>>| {
            u32::try_from(bytes(&task.task)).unwrap_or(u32::MAX)
        };
        EndedTasks {
            tasks: Cache::builder()
                .weigher(weigh)
                .max_capacity(BYTES_MAX)
                .build(),
            names: Cache::new(NAMES_MAX),
        }
    }
}

impl<Id: Hash + Eq + Clone + Send + Sync + 'static> EndedTasks<Id> {
    pub fn answer(&self, admission: &Admission, now: Timestamp) -> Option<Hit<Id>> {
        let (name, matched_by) = match &admission.key {
            Some(key) => (
                Name::Key(admission.user.clone(), key.clone()),
                MatchedBy::IdempotencyKey,
            ),
            None if admission.submission.mode() == DedupMode::Return => (
                Name::Fingerprint(admission.user.clone(), admission.fingerprint),
                MatchedBy::Fingerprint,
            ),
            None => return None,
        };
        let answer = self.names.get(&name).filter(|answer| answer.until > now)?;
        if let Some((fingerprint, rule)) = &answer.recorded
            && !admission.repeats(fingerprint, rule)
        {
            return None;
        }
        let remembered = self.tasks.get(&answer.id)?;
        if remembered.task.user != admission.user {
            return None;
        }
        Some(Hit {
            remembered,
            matched_by,
            key_expires_at: answer.key_expires_at,
        })
    }

    pub fn remember(&self, ended: EndedTask<Id>) {
        let EndedTask {
            id,
            task,
            run_time,
            window,
            name,
            recorded,
            key_expires_at,
            until,
        } = ended;
        if bytes(&task) > TASK_BYTES_MAX {
            return;
        }
        let seen = task.duplicates;
        let fresh = || {
            Arc::new(Remembered {
                id: id.clone(),
                task,
                run_time,
                window,
                duplicates: AtomicU64::new(seen),
            })
        };
        self.tasks
            .get_with(id.clone(), fresh)
            .duplicates
            .fetch_max(seen, Ordering::Relaxed);
        self.names.insert(
            name,
            Arc::new(Answer {
                id,
                recorded,
                key_expires_at,
                until,
            }),
        );
    }

    pub fn forget(&self, id: &Id) {
        self.tasks.invalidate(id);
    }
}

impl<Id> Remembered<Id> {
    /// The task as one more duplicate sees it.
    pub fn one_more(&self) -> Task {
        let duplicates = self.duplicates.fetch_add(1, Ordering::Relaxed) + 1;
        Task {
            duplicates,
            ..self.task.clone()
        }
    }
}

/// A rough size in memory.
fn bytes(task: &Task) -> usize {
    let result = match &task.outcome {
        Some(Outcome::Inline(raw)) => raw.get().len(),
        Some(Outcome::Blob { .. } | Outcome::Expired) | None => 0,
    };
    1024 + result + task.params.get().len() + 256 * task.files.len()
}
