//! Duplicates that were answered, on their way into the ledger. They are written behind the answers, in
//! batches; whoever reads the ledger has them written first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::keys::{Keys, Partition};
use super::record::to_json;
use super::scripts::NOTE;
use super::step::{Step, Steps};
use crate::domain::principal::UserId;
use crate::domain::stats::Histogram;
use crate::domain::task::TaskId;
use crate::store::{LedgerEntry, MatchedBy, StoreError};

/// Duplicates and latencies in one step at most.
const BATCH_MAX: usize = 500;
/// Duplicates and latencies that wait at most; while Redis is gone, more are not noted.
const WAITING_MAX: usize = 100_000;

/// One answered duplicate.
pub struct Suppressed {
    pub task: TaskId,
    pub user: UserId,
    pub entry: LedgerEntry,
    /// Whether the task had ended, so that no execution was needed.
    pub cache_hit: bool,
    pub bytes_not_sent: u64,
    pub bytes_not_stored: u64,
}

#[derive(Default)]
pub struct Notes {
    pending: Mutex<Pending>,
    /// Held while notes are on their way: who waits for it reads what was said before.
    writing: tokio::sync::Mutex<Vec<Batch>>,
}

#[derive(Default)]
struct Pending {
    suppressed: Vec<Suppressed>,
    /// By task, what `suppressed` holds.
    counts: HashMap<TaskId, u64>,
    latencies: Vec<(UserId, Duration)>,
}

/// What one step writes. It keeps its nonce until it is written.
struct Batch {
    partition: Partition,
    nonce: String,
    suppressed: Vec<Suppressed>,
    latencies: Vec<(UserId, Duration)>,
}

impl Notes {
    /// Returns how many duplicates of the task wait to be written, this one included.
    pub fn suppressed(&self, suppressed: Suppressed) -> u64 {
        let mut pending = self.lock();
        if pending.suppressed.len() >= WAITING_MAX {
            return 1;
        }
        let count = pending.counts.entry(suppressed.task.clone()).or_default();
        *count += 1;
        let count = *count;
        pending.suppressed.push(suppressed);
        count
    }

    pub fn submit_latency(&self, user: &UserId, took: Duration) {
        let mut pending = self.lock();
        if pending.latencies.len() < WAITING_MAX {
            pending.latencies.push((user.clone(), took));
        }
    }

    /// Writes everything that waits.
    pub async fn write(&self, steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
        let mut unwritten = self.writing.lock().await;
        if unwritten.is_empty() {
            *unwritten = batches(std::mem::take(&mut *self.lock()), keys);
        }
        while let Some(batch) = unwritten.last() {
            steps.take(batch.step(keys.root(batch.partition))?).await?;
            unwritten.pop();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest last: they are written from the end.
fn batches(pending: Pending, keys: &Keys) -> Vec<Batch> {
    let mut open: BTreeMap<Partition, Batch> = BTreeMap::new();
    let mut full = Vec::new();
    let mut of = |user: &UserId, add: &mut dyn FnMut(&mut Batch)| {
        let partition = keys.of_user(user);
        let batch = open
            .entry(partition)
            .or_insert_with(|| Batch::new(partition));
        add(batch);
        if batch.suppressed.len() + batch.latencies.len() >= BATCH_MAX {
            full.push(std::mem::replace(batch, Batch::new(partition)));
        }
    };
    for one in pending.suppressed {
        let user = one.user.clone();
        let mut one = Some(one);
        of(&user, &mut |batch| batch.suppressed.extend(one.take()));
    }
    for (user, took) in pending.latencies {
        let mut one = Some((user.clone(), took));
        of(&user, &mut |batch| batch.latencies.extend(one.take()));
    }
    full.extend(open.into_values().filter(|batch| !batch.is_empty()));
    full.reverse();
    full
}

impl Batch {
    fn new(partition: Partition) -> Self {
        Batch {
            partition,
            nonce: uuid::Uuid::new_v4().simple().to_string(),
            suppressed: Vec::new(),
            latencies: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.suppressed.is_empty() && self.latencies.is_empty()
    }

    fn step(&self, root: &str) -> Result<Step, StoreError> {
        let mut tallies: BTreeMap<(&UserId, &'static str), u64> = BTreeMap::new();
        let mut tasks: BTreeMap<&TaskId, Vec<&Suppressed>> = BTreeMap::new();
        for one in &self.suppressed {
            for (name, by) in counted(one) {
                *tallies.entry((&one.user, name)).or_default() += by;
            }
            tasks.entry(&one.task).or_default().push(one);
        }
        let mut latencies: BTreeMap<(&UserId, u16), u64> = BTreeMap::new();
        for (user, took) in &self.latencies {
            let bucket = Histogram::bucket(took.as_secs_f64() * 1000.0);
            *latencies.entry((user, bucket)).or_default() += 1;
        }
        tallies.retain(|_, by| *by > 0);
        let mut step = Step::new(&NOTE, &[root])
            .arg(&self.nonce)
            .arg(tallies.len());
        for ((user, name), by) in tallies {
            step = step.arg(user.as_str()).arg(name).arg(by);
        }
        step = step.arg(latencies.len());
        for ((user, bucket), count) in latencies {
            step = step.arg(user.as_str()).arg(bucket).arg(count);
        }
        step = step.arg(tasks.len());
        for (id, suppressed) in tasks {
            let newest = suppressed.len().saturating_sub(LedgerEntry::KEPT_MAX);
            let kept = &suppressed[newest..];
            step = step.arg(id.as_str()).arg(suppressed.len()).arg(kept.len());
            for one in kept {
                step = step.arg(to_json(&one.entry)?);
            }
        }
        Ok(step)
    }
}

fn counted(one: &Suppressed) -> [(&'static str, u64); 6] {
    let matched = match one.entry.matched_by {
        MatchedBy::IdempotencyKey => "duplicates_by_key",
        MatchedBy::Fingerprint | MatchedBy::DedupBy => "duplicates_by_fingerprint",
    };
    [
        (matched, 1),
        ("cache_hits", u64::from(one.cache_hit)),
        ("saved_executions", 1),
        ("saved_ms", one.entry.saved_ms()),
        ("saved_bytes_not_sent", one.bytes_not_sent),
        ("saved_bytes_not_stored", one.bytes_not_stored),
    ]
}
