//! What this replica knows of each partition without asking: whether there may be work for a lease, and
//! when something will be due. News and its own steps keep it sharp; a slow look at everything keeps it
//! right.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::keys::Partition;
use crate::domain::timestamp::Timestamp;

/// Sets of types that something is remembered of, at most.
const ASKS_MAX: usize = 1_000;

pub struct Horizon {
    partitions: Vec<Known>,
    /// What leases have found, by their types.
    found: Mutex<HashMap<Vec<String>, OfTypes>>,
    next_visit: AtomicUsize,
}

struct OfTypes {
    seen: Vec<Seen>,
    /// What those had got who were last in turn: so many tasks for each of their users.
    served: f64,
}

/// What a lease has found in a partition.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// The news of work that were heard when nothing was left.
    drained_at: u64,
    /// Users who waited for their turn.
    users: u64,
    /// Tasks that were got here, for each user.
    served: f64,
}

/// A part of what is to be leased.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub partition: Partition,
    /// Tasks at most.
    pub max: usize,
    heard: u64,
    users: u64,
    served: f64,
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
            found: Mutex::default(),
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

    /// Whether there may be work of these types anywhere.
    pub fn is_promising(&self, types: &[String]) -> bool {
        !self.shares(types, 1, &HashSet::new()).is_empty()
    }

    /// Partitions that may hold work of these types, and how much of `max` tasks to ask each for: as much as users are
    /// known to wait there. Whoever has got least, for the users that it has, is first.
    pub fn shares(&self, types: &[String], max: usize, but_for: &HashSet<Partition>) -> Vec<Share> {
        let known = self.known_of();
        let known = known.get(types);
        let mut shares = Vec::new();
        for (partition, of) in self.all() {
            let heard = of.work.load(Ordering::Relaxed);
            let seen = known.and_then(|known| known.seen.get(partition.index()));
            let seen = seen.copied().unwrap_or_default();
            if heard != seen.drained_at && !but_for.contains(&partition) {
                shares.push(Share {
                    partition,
                    heard,
                    users: seen.users.max(1),
                    // Who had nothing to do does not catch up on it.
                    served: seen.served.max(known.map_or(0.0, |known| known.served)),
                    max: 0,
                });
            }
        }
        shares.sort_by(|a, b| a.served.total_cmp(&b.served));
        let (mut left, mut users) = (max, shares.iter().map(|share| share.users).sum::<u64>());
        for share in &mut shares {
            let part = (left as u64 * share.users).div_ceil(users.max(1));
            share.max = usize::try_from(part).unwrap_or(left).min(left);
            (left, users) = (left - share.max, users - share.users);
        }
        shares.retain(|share| share.max > 0);
        shares
    }

    /// So many were leased of one, and users have more; or none has.
    pub fn leased(&self, types: &[String], share: &Share, count: usize, users: Option<u64>) {
        let mut known = self.known_of();
        if known.len() >= ASKS_MAX && !known.contains_key(types) {
            known.clear();
        }
        let of = known.entry(types.to_vec()).or_insert_with(|| OfTypes {
            seen: vec![Seen::default(); self.partitions.len()],
            served: 0.0,
        });
        of.served = of.served.max(share.served);
        if let Some(seen) = of.seen.get_mut(share.partition.index()) {
            if users.is_none() {
                seen.drained_at = share.heard;
            }
            seen.users = users.unwrap_or(0);
            seen.served = share.served + count as f64 / share.users.max(seen.users) as f64;
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

    fn known_of(&self) -> MutexGuard<'_, HashMap<Vec<String>, OfTypes>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drained_partition_is_left_alone_until_there_is_news() {
        let horizon = Horizon::new(2);
        let types = ["echo".to_owned()];
        let shares = horizon.shares(&types, 9, &HashSet::new());
        assert_eq!(shares.iter().map(|share| share.max).sum::<usize>(), 9);
        for share in &shares {
            horizon.leased(&types, share, 0, None);
        }
        assert!(!horizon.is_promising(&types));
        assert!(horizon.is_promising(&["other".to_owned()]));
        // News that comes between the look and its note is not lost.
        let partition = Partition::at(1);
        horizon.work(partition);
        let [share] = &horizon.shares(&types, 9, &HashSet::new())[..] else {
            panic!("no news");
        };
        assert_eq!((share.partition, share.max), (partition, 9));
        horizon.work(partition);
        horizon.leased(&types, share, 0, None);
        assert!(horizon.is_promising(&types));
    }

    #[test]
    fn partitions_get_as_much_as_users_wait_there() {
        let horizon = Horizon::new(3);
        let types = ["echo".to_owned()];
        let mut got = [0.0; 3];
        let waiting = [1, 10, 4];
        for _ in 0..150 {
            for share in horizon.shares(&types, 1, &HashSet::new()) {
                let (at, users) = (share.partition.index(), waiting[share.partition.index()]);
                got[at] += share.max as f64 / users as f64;
                horizon.leased(&types, &share, share.max, Some(users));
            }
        }
        assert!(got.iter().all(|got| (9.0..=11.0).contains(got)), "{got:?}");
        let max: Vec<_> = horizon
            .shares(&types, 15, &HashSet::new())
            .iter()
            .map(|s| (s.partition.index(), s.max))
            .collect();
        assert!(
            waiting
                .iter()
                .enumerate()
                .all(|(at, &users)| max.contains(&(at, users as usize))),
            "{max:?}"
        );
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
