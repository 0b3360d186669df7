//! Where the operator asks for more than Redis gives by itself: WAITAOF behind what was written. One
//! round covers everybody who was answered before it began, and goes on if some of them go away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use redis::{Value, from_redis_value_ref};
use tokio::sync::oneshot;

use super::keys::{self, Partition};
use super::link::Commands;
use super::marks::Known;
use super::server::Server;
use super::step::unavailable;
use crate::store::StoreError;

/// What a round waits for its copies at most, in ms, one wait behind the other. Replicas are asked how far
/// they are when a wait begins, and not again before a second is over: most have not fsynced yet when the
/// first asks, and have when the second does.
const WAITS_MS: [u64; 6] = [5, 20, 75, 200, 300, 400];
pub const ANOTHER: &str = "written, and another server has taken over meanwhile";
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
    lanes: Vec<Arc<Lane>>,
}

/// Rounds of one server, one after the other.
#[derive(Default)]
struct Lane(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    promises: Vec<Promise>,
    is_at_work: bool,
}

/// What somebody waits for: the mark that it raised, and where that is.
struct Promise {
    root: String,
    mark_key: String,
    mark: u64,
    /// The mark of the last promise that was kept there: below it, something is lost.
    told: u64,
    /// Who has raised it.
    server: Server,
    done: oneshot::Sender<Result<Server, StoreError>>,
}

impl Confirmations {
    pub fn new(link: Arc<dyn Commands>) -> Self {
        Confirmations {
            link,
            demand: RwLock::new(Ok(None)),
            lanes: (0..LANES).map(|_| Arc::default()).collect(),
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

    /// Returns when the promise that raised the mark to this, on that server, is where it is asked to be. With who says so.
    pub async fn confirm(
        &self,
        known: &Known,
        (partition, root): (Partition, &str),
        mark: u64,
        server: Server,
    ) -> Result<Server, StoreError> {
        let Some(demand) = self.demand()? else {
            return Ok(server);
        };
        let (done, kept) = oneshot::channel();
        let promise = Promise {
            root: root.to_owned(),
            mark_key: keys::mark(root, known.name()),
            mark,
            told: known.floor(partition),
            server,
            done,
        };
        let lane = self.lane(partition);
        if lane.wait_for(promise) {
            tokio::spawn(lane.clone().work(self.link.clone(), demand));
        }
        kept.await
            .unwrap_or_else(|_| Err(unavailable("written, and nobody confirms it")))
    }

    fn lane(&self, partition: Partition) -> &Arc<Lane> {
        let index = if self.link.is_one_server() {
            0
        } else {
            partition.index() % self.lanes.len()
        };
        &self.lanes[index]
    }
}

impl Lane {
    /// Whether somebody has to begin with the rounds.
    fn wait_for(&self, promise: Promise) -> bool {
        let mut waiting = self.waiting();
        waiting.promises.push(promise);
        !std::mem::replace(&mut waiting.is_at_work, true)
    }

    async fn work(self: Arc<Self>, link: Arc<dyn Commands>, demand: Demand) {
        while let Some(promises) = self.next_round() {
            round(&*link, promises, demand).await;
        }
    }

    fn next_round(&self) -> Option<Vec<Promise>> {
        let mut waiting = self.waiting();
        if waiting.promises.is_empty() {
            waiting.is_at_work = false;
            return None;
        }
        Some(std::mem::take(&mut waiting.promises))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn round(link: &dyn Commands, promises: Vec<Promise>, demand: Demand) {
    match answers(link, &promises, demand).await {
        Ok((marks, copies, server)) => {
            let outcome = enough(&copies, demand).map(|()| server.clone());
            let mut is_another = false;
            for (promise, mark) in promises.into_iter().zip(marks) {
                is_another |= !promise.server.may_be(&server);
                let kept = stands(&promise, &mark, &server).and_then(|()| outcome.clone());
                let _ = promise.done.send(kept);
            }
            if is_another {
                link.connect_anew();
            }
        }
        Err(error) => {
            for promise in promises {
                let _ = promise.done.send(Err(error.clone()));
            }
        }
    }
}

/// The marks as they are now, and what was fsynced behind them: all from one server, on one connection. A
/// wait covers what its own connection has written, so something is written behind everything else.
async fn answers(
    link: &dyn Commands,
    promises: &[Promise],
    demand: Demand,
) -> Result<(Vec<Value>, Value, Server), StoreError> {
    let Some(first) = promises.first() else {
        return Err(unavailable("nothing to confirm"));
    };
    let marks = promises.iter().map(|promise| {
        let mut mark = redis::cmd("GET");
        mark.arg(&promise.mark_key);
        mark
    });
    let mut behind = redis::cmd("SET");
    behind.arg(keys::confirmed(&first.root)).arg(1);
    let waits = WAITS_MS.map(|ms| {
        let mut wait = redis::cmd("WAITAOF");
        wait.arg(demand.local).arg(demand.replicas).arg(ms);
        wait
    });
    let together: Vec<_> = marks.chain([behind]).chain(waits).collect();
    let answers = link.run_together(&first.root, &together).await;
    let (mut answers, server) =
        answers.map_err(|error| unavailable(&format!("WAITAOF: {error}")))?;
    // The last wait has the last word.
    match answers.pop() {
        Some(copies) if answers.len() >= promises.len() => Ok((answers, copies, server)),
        _ => Err(unavailable("WAITAOF: an answer is missing")),
    }
}

/// Whether the server still holds the promise. Of another server, the mark says so only where that has less.
fn stands(promise: &Promise, mark: &Value, server: &Server) -> Result<(), StoreError> {
    let mark: Option<u64> =
        from_redis_value_ref(mark).map_err(|_| unavailable("GET: not a number"))?;
    match mark.unwrap_or(0) {
        mark if mark < promise.told => Err(StoreError::StateLost),
        _ if !promise.server.may_be(server) => Err(unavailable(ANOTHER)),
        mark if mark >= promise.mark => Ok(()),
        _ => Err(unavailable(
            "written, and gone again before it was confirmed",
        )),
    }
}

fn enough(copies: &Value, demand: Demand) -> Result<(), StoreError> {
    let (local, replicas): (u8, u8) =
        from_redis_value_ref(copies).map_err(|_| unavailable("WAITAOF: not two numbers"))?;
    if local < demand.local || replicas < demand.replicas {
        return Err(unavailable(&format!(
            "written, but fsynced by {local} primary and {replicas} replicas only"
        )));
    }
    Ok(())
}
