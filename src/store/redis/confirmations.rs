//! Where the operator asks for more than Redis gives by itself: WAITAOF behind what was written. One
//! round covers everybody who was answered before it began.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redis::from_redis_value;
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
    turn: Mutex<()>,
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

    /// Returns when everything that was written before is where it is asked to be.
    pub async fn confirm(
        &self,
        known: &Arc<Known>,
        partition: Partition,
        root: &str,
    ) -> Result<(), StoreError> {
        let Some(demand) = self.demand()? else {
            return Ok(());
        };
        let lane = self.lane(partition);
        let arrived = lane.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let _turn = lane.turn.lock().await;
        if lane.covered.load(Ordering::Acquire) >= arrived {
            return Ok(());
        }
        let covers = lane.arrived.load(Ordering::Acquire);
        round(&*self.link, known, partition, root, demand).await?;
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

/// Raises the mark once more: it comes behind everything, and shows that the server is still the one.
async fn round(
    link: &dyn Commands,
    known: &Known,
    partition: Partition,
    root: &str,
    demand: Demand,
) -> Result<(), StoreError> {
    let floor = known.floor(partition);
    let mut mark = redis::cmd("INCR");
    mark.arg(keys::mark(root, known.name()));
    let waits = WAITS_MS.map(|ms| {
        let mut wait = redis::cmd("WAITAOF");
        wait.arg(demand.local).arg(demand.replicas).arg(ms);
        wait
    });
    let together: Vec<_> = std::iter::once(mark).chain(waits).collect();
    let answers = link.run_together(root, &together).await;
    let mut answers = answers.map_err(|error| unavailable(&format!("WAITAOF: {error}")))?;
    // The last wait has the last word.
    let (Some(copies), Some(mark)) = (answers.pop(), answers.into_iter().next()) else {
        return Err(unavailable("WAITAOF: an answer is missing"));
    };
    let mark: u64 = from_redis_value(mark).map_err(|_| unavailable("INCR: not a number"))?;
    if mark <= floor {
        return Err(StoreError::StateLost);
    }
    known.saw(partition, mark);
    let (local, replicas): (u8, u8) =
        from_redis_value(copies).map_err(|_| unavailable("WAITAOF: not two numbers"))?;
    if local < demand.local || replicas < demand.replicas {
        return Err(unavailable(&format!(
            "written, but fsynced by {local} primary and {replicas} replicas only"
        )));
    }
    Ok(())
}
