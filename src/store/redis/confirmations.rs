//! Where the operator asks for more than Redis gives by itself: WAITAOF behind what was written. One
//! round covers everybody who was answered before it began.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};

use redis::from_redis_value_ref;
use tokio::sync::Mutex;

use super::keys::{self, Partition};
use super::link::Commands;
use super::marks::Known;
use super::step::unavailable;
use crate::store::StoreError;

/// What a round waits for its copies at most, in ms, one wait behind the other. Replicas are asked how far
/// they are when a wait begins, and not again before a second is over: most have not fsynced yet when the
/// first asks, and have when the second does.
const WAITS_MS: [u64; 6] = [5, 20, 75, 200, 300, 400];
/// More partitions than this share rounds.
const LANES: usize = 64;

/// How many append-only files must have fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Of the primary: 0 or 1.
    pub local: u8,
    pub replicas: u8,
}

pub struct Confirmations {
    /// Nothing else waits on these connections.
    link: Arc<dyn Commands>,
    /// Or why nothing must be promised now.
    demand: RwLock<Result<Option<Demand>, String>>,
    lanes: Vec<Lane>,
}

/// Rounds of one server, one after the other.
#[derive(Default)]
struct Lane {
    arrived: AtomicU64,
    covered: AtomicU64,
    /// What the next round covers.
    waiting: std::sync::Mutex<BTreeMap<usize, Promise>>,
    turn: Mutex<()>,
}

/// The last promise in a partition: the mark that it raised, and where that is.
struct Promise {
    mark_key: String,
    mark: u64,
}

impl Confirmations {
    pub fn new(link: Arc<dyn Commands>) -> Self {
        Confirmations {
            link,
            demand: RwLock::new(Ok(None)),
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
        }
    }

    pub fn set(&self, demand: Result<Option<Demand>, String>) {
        *self.demand.write().unwrap_or_else(PoisonError::into_inner) = demand;
    }

    /// What is to be waited for behind a promise. An error where none may be made.
    pub fn demand(&self) -> Result<Option<Demand>, StoreError> {
        let demand = self.demand.read().unwrap_or_else(PoisonError::into_inner);
        demand.clone().map_err(|fault| unavailable(&fault))
    }

    /// Returns when the promise that raised the mark to this is where it is asked to be.
    pub async fn confirm(
        &self,
        known: &Known,
        partition: Partition,
        root: &str,
        mark: u64,
    ) -> Result<(), StoreError> {
        let Some(demand) = self.demand()? else {
            return Ok(());
        };
        let lane = self.lane(partition);
        lane.wait_for(
            partition,
            Promise {
                mark_key: keys::mark(root, known.name()),
                mark,
            },
        );
        let arrived = lane.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let _turn = lane.turn.lock().await;
        if lane.covered.load(Ordering::Acquire) >= arrived {
            return Ok(());
        }
        let covers = lane.arrived.load(Ordering::Acquire);
        let promises = lane.next_round();
        if let Err(error) = round(&*self.link, root, &promises, demand).await {
            lane.fail(promises);
            return Err(error);
        }
        lane.covered.fetch_max(covers, Ordering::AcqRel);
        Ok(())
    }

    fn lane(&self, partition: Partition) -> &Lane {
        let index = if self.link.is_one_server() {
            0
        } else {
            partition.index() % self.lanes.len()
        };
        &self.lanes[index]
    }
}

impl Lane {
    fn wait_for(&self, partition: Partition, promise: Promise) {
        let mut waiting = self.waiting();
        match waiting.get(&partition.index()) {
            Some(known) if known.mark_key == promise.mark_key && known.mark > promise.mark => {}
            _ => drop(waiting.insert(partition.index(), promise)),
        }
    }

    fn next_round(&self) -> BTreeMap<usize, Promise> {
        std::mem::take(&mut self.waiting())
    }

    /// Others wait for the same promises, and will try again.
    fn fail(&self, promises: BTreeMap<usize, Promise>) {
        let mut waiting = self.waiting();
        for (index, promise) in promises {
            waiting.entry(index).or_insert(promise);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<usize, Promise>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises each mark once more: that comes behind everything, and shows that the server is still the one.
async fn round(
    link: &dyn Commands,
    root: &str,
    promises: &BTreeMap<usize, Promise>,
    demand: Demand,
) -> Result<(), StoreError> {
    let marks = promises.values().map(|promise| {
        let mut mark = redis::cmd("INCR");
        mark.arg(&promise.mark_key);
        mark
    });
    let waits = WAITS_MS.map(|ms| {
        let mut wait = redis::cmd("WAITAOF");
        wait.arg(demand.local).arg(demand.replicas).arg(ms);
        wait
    });
    let together: Vec<_> = marks.chain(waits).collect();
    let answers = link.run_together(root, &together).await;
    let answers = answers.map_err(|error| unavailable(&format!("WAITAOF: {error}")))?;
    // The last wait has the last word.
    let Some(copies) = answers.last() else {
        return Err(unavailable("WAITAOF: an answer is missing"));
    };
    for (promise, mark) in promises.values().zip(&answers) {
        let mark: u64 =
            from_redis_value_ref(mark).map_err(|_| unavailable("INCR: not a number"))?;
        if mark <= promise.mark {
            return Err(StoreError::StateLost);
        }
    }
    let (local, replicas): (u8, u8) =
        from_redis_value_ref(copies).map_err(|_| unavailable("WAITAOF: not two numbers"))?;
    if local < demand.local || replicas < demand.replicas {
        return Err(unavailable(&format!(
            "written, but fsynced by {local} primary and {replicas} replicas only"
        )));
    }
    Ok(())
}
