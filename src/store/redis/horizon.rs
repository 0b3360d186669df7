//! What this replica knows of each partition without asking: whether there may be work for a lease, and
//! when something will be due. News and its own steps keep it sharp; a slow look at everything keeps it
//! right.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::keys::Partition;
use crate::domain::timestamp::Timestamp;

/// Sets of types that are remembered as drained, at most.
const ASKS_MAX: usize = 1_000;

pub struct Horizon {
    partitions: Vec<Known>,
    /// By the types of a lease: the news that it had heard when it found a partition empty.
    drained: Mutex<HashMap<Vec<String>, Vec<u64>>>,
    next_visit: AtomicUsize,
}

struct Known {
    /// Grows with every piece of news of work.
    work: AtomicU64,
    /// The next deadline, in ms of this machine's clock.
    due_at: AtomicI64,
    /// Tasks that had not ended when that was last asked.
    open: AtomicU64,
    /// The last place that was given away in the queue when that was last asked.
    seq: AtomicU64,
}

impl Horizon {
    /// Everything is to be looked at.
    pub fn new(partitions: usize) -> Self {
        let known = || Known {
            work: AtomicU64::new(1),
            due_at: AtomicI64::new(i64::MIN),
            open: AtomicU64::new(0),
            seq: AtomicU64::new(0),
        };
        Horizon {
            partitions: (0..partitions).map(|_| known()).collect(),
            drained: Mutex::default(),
            next_visit: AtomicUsize::new(0),
        }
    }

    /// News may have been missed.
    pub fn is_unknown(&self) {
        self.work_anywhere();
        for known in &self.partitions {
            known.due_at.store(i64::MIN, Ordering::Relaxed);
        }
    }

    /// There may be work that nothing tells of: a server that takes over may know nothing of a lease, and has its task in the
    /// queue where it had always been.
    pub fn work_anywhere(&self) {
        for known in &self.partitions {
            known.work.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn work(&self, partition: Partition) {
        if let Some(known) = self.known(partition) {
            known.work.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn due(&self, partition: Partition, at: Timestamp) {
        if let Some(known) = self.known(partition) {
            known.due_at.fetch_min(at.as_ms(), Ordering::Relaxed);
        }
    }

    /// Partitions that may hold work of these types, each with the news heard of it so far.
    pub fn promising(&self, types: &[String]) -> Vec<(Partition, u64)> {
        let drained = self.drained();
        let seen = drained.get(types);
        let mut promising = Vec::new();
        for (partition, known) in self.all() {
            let work = known.work.load(Ordering::Relaxed);
            let heard = seen
                .and_then(|seen| seen.get(partition.index()))
                .copied()
                .unwrap_or(0);
            if work != heard {
                promising.push((partition, work));
            }
        }
        promising
    }

    /// A lease of these types got all that there was, having heard this news.
    pub fn drained_at(&self, types: &[String], partition: Partition, heard: u64) {
        let mut drained = self.drained();
        if drained.len() >= ASKS_MAX {
            drained.clear();
        }
        let seen = drained
            .entry(types.to_vec())
            .or_insert_with(|| vec![0; self.partitions.len()]);
        if let Some(seen) = seen.get_mut(partition.index()) {
            *seen = heard;
        }
    }

    /// Partitions with a deadline that has passed, and one more in turn.
    pub fn to_rescue(&self, now: Timestamp) -> Vec<Partition> {
        let turn = self.next_visit.fetch_add(1, Ordering::Relaxed) % self.partitions.len().max(1);
        let is_due = |&(partition, known): &(Partition, &Known)| {
            partition.index() == turn || known.due_at.load(Ordering::Relaxed) <= now.as_ms()
        };
        let due: Vec<_> = self.all().filter(is_due).map(|(p, _)| p).collect();
        // What becomes due while they are looked at is noted on top of this.
        for &partition in &due {
            if let Some(known) = self.known(partition) {
                known.due_at.store(i64::MAX, Ordering::Relaxed);
            }
        }
        due
    }

    pub fn next_due_at(&self) -> Option<Timestamp> {
        let soonest = self
            .partitions
            .iter()
            .map(|known| known.due_at.load(Ordering::Relaxed));
        soonest
            .min()
            .filter(|&at| at != i64::MAX)
            .map(Timestamp::from_ms)
    }

    /// Whether something was queued since the last look.
    pub fn queued_up_to(&self, partition: Partition, seq: u64) -> bool {
        let Some(known) = self.known(partition) else {
            return false;
        };
        let is_news = known.seq.swap(seq, Ordering::Relaxed) != seq;
        if is_news {
            known.work.fetch_add(1, Ordering::Relaxed);
        }
        is_news
    }

    pub fn set_open(&self, partition: Partition, open: u64) {
        if let Some(known) = self.known(partition) {
            known.open.store(open, Ordering::Relaxed);
        }
    }

    /// Unfinished tasks in all other partitions, as last heard.
    pub fn open_elsewhere(&self, than: Partition) -> u64 {
        self.all()
            .filter(|(partition, _)| *partition != than)
            .map(|(_, known)| known.open.load(Ordering::Relaxed))
            .sum()
    }

    fn all(&self) -> impl Iterator<Item = (Partition, &Known)> {
        self.partitions
            .iter()
            .enumerate()
            .map(|(index, known)| (Partition::at(index), known))
    }

    fn known(&self, partition: Partition) -> Option<&Known> {
        self.partitions.get(partition.index())
    }

    fn drained(&self) -> MutexGuard<'_, HashMap<Vec<String>, Vec<u64>>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drained_partition_is_left_alone_until_there_is_news() {
        let horizon = Horizon::new(2);
        let types = ["echo".to_owned()];
        assert_eq!(horizon.promising(&types).len(), 2);
        for (partition, heard) in horizon.promising(&types) {
            horizon.drained_at(&types, partition, heard);
        }
        assert_eq!(horizon.promising(&types), []);
        assert_eq!(horizon.promising(&["other".to_owned()]).len(), 2);
        // News that comes between the look and its note is not lost.
        let partition = Partition::at(1);
        horizon.work(partition);
        let [(_, heard)] = horizon.promising(&types)[..] else {
            panic!("no news");
        };
        horizon.work(partition);
        horizon.drained_at(&types, partition, heard);
        assert_eq!(horizon.promising(&types).len(), 1);
    }

    #[test]
    fn a_partition_is_rescued_when_it_is_due_and_in_its_turn() {
        let horizon = Horizon::new(4);
        let now = Timestamp::from_ms(1_000);
        assert_eq!(horizon.to_rescue(now).len(), 4);
        assert_eq!(horizon.next_due_at(), None);
        assert_eq!(horizon.to_rescue(now), [Partition::at(1)]);
        horizon.due(Partition::at(0), now);
        assert_eq!(horizon.next_due_at(), Some(now));
        assert_eq!(horizon.to_rescue(now), [Partition::at(0), Partition::at(2)]);
    }
}
