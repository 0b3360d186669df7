//! One replica: the product's own store over a simulated connection, and what its process does beside it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::wire::Wire;
use super::world::Shared;
use crate::domain::task::{Progress, TaskError};
use crate::domain::timestamp::Timestamp;
use crate::domain::turns::{Bounds, Rate};
use crate::store::redis::agenda::Agenda;
use crate::store::redis::confirmations::Demand;
use crate::store::redis::guard::{Assumed, Guard};
use crate::store::redis::news::Listener;
use crate::store::redis::{
    Durability, Horizon, Lines, Marks, Memory, Notes, Parts, Rates, RedisStore, Signals, Steps,
    begin, chores, rescue,
};
use crate::store::{Fenced, Held, Holder, Lease, LeaseRequest, Store, StoreError, TaskResult};

pub const TYPES: [&str; 3] = ["plain", "other", "rivals"];
const LEASE: Duration = Duration::from_secs(4);

pub struct Replica {
    world: Shared,
    pub index: usize,
    folder: PathBuf,
    process: Mutex<Option<Process>>,
    /// Held while it starts: nobody starts a second process on its folder.
    starts: tokio::sync::Mutex<()>,
    /// How far its clock is off, ms.
    clock_ms: Mutex<i64>,
}

/// From one start to its end.
#[derive(Clone)]
pub struct Process {
    pub store: RedisStore,
    wire: Arc<Wire>,
    listener: Arc<Listener>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
    is_draining: CancellationToken,
}

impl Replica {
    pub fn new(world: Shared, index: usize, folder: PathBuf) -> Arc<Self> {
        std::fs::create_dir_all(&folder).unwrap();
        let nobody = format!(r#"{{"replica":"r{index}","epoch":"","marks":[]}}"#);
        std::fs::write(folder.join("redis-marks.json"), nobody).unwrap();
        Arc::new(Replica {
            world,
            index,
            folder,
            process: Mutex::default(),
            starts: tokio::sync::Mutex::default(),
            clock_ms: Mutex::new(0),
        })
    }

    pub fn process(&self) -> Option<Process> {
        self.process.lock().unwrap().clone()
    }

    pub fn set_clock(&self, off_ms: i64) {
        self.world
            .note(|| format!("the clock of replica {} is off by {off_ms} ms", self.index));
        *self.clock_ms.lock().unwrap() = off_ms;
    }

    /// Starts, as often as it takes, unless it is there or starts already.
    pub async fn start(self: &Arc<Self>) {
        let Ok(_only) = self.starts.try_lock() else {
            return;
        };
        while self.process().is_none() {
            self.world.lock().ledger.restarts(self.index);
            match self.open().await {
                Some(process) => {
                    self.world
                        .note(|| format!("replica {} has started", self.index));
                    *self.process.lock().unwrap() = Some(process.clone());
                    for _ in 0..2 {
                        process.spawn(work(self.world.clone(), process.clone()));
                    }
                    process.spawn(self.clone().rescue(process.store.clone()));
                }
                None => sleep(Duration::from_millis(300)).await,
            }
        }
    }

    /// As `RedisStore::open`, without the look at settings and the subscription.
    async fn open(&self) -> Option<Process> {
        let wire = Arc::new(Wire::new(self.world.clone(), self.index));
        let marks = Arc::new(Marks::open(Some(&self.folder)).unwrap());
        let steps = Steps::new(wire.clone(), wire.clone(), marks);
        let (is_fsynced, is_copied) = {
            let world = self.world.lock();
            (world.is_fsynced, world.is_copied)
        };
        let demand = is_fsynced.then_some(Demand {
            local: 1,
            replicas: u8::from(is_copied),
        });
        steps.confirmations().set(Ok(demand));
        let keys = begin(&steps, "sim").await.ok()?;
        let stop = CancellationToken::new();
        let parts = Arc::new(Parts {
            horizon: Arc::new(Horizon::new(keys.partitions().count())),
            agenda: Arc::new(Agenda::new(keys.partitions().count())),
            admissions: Lines::new(keys.partitions().count()),
            completions: Lines::new(keys.partitions().count()),
            requests: Lines::new(keys.partitions().count()),
            memory: Memory::new(keys.partitions().count()),
            steps,
            keys,
            signals: Signals::default(),
            notes: Notes::default(),
            guard: Guard::new(Assumed::default(), Durability::Memory),
            pauses: Arc::default(),
            rates: Rates::default(),
            queue_tasks_max: 1_000,
            exhausted: Default::default(),
            orphans_kept_for: Duration::ZERO,
            pinged_at: Mutex::default(),
            _stop: stop.clone().drop_guard(),
        });
        match parts.look().await {
            Ok(()) | Err(StoreError::StateLost) => {}
            Err(_) => return None,
        }
        chores::start(&parts);
        let listener = Arc::new(Listener {
            link: wire.clone(),
            channel: parts.keys.news(),
            horizon: parts.horizon.clone(),
            agenda: parts.agenda.clone(),
            signals: parts.signals.clone(),
            pauses: parts.pauses.clone(),
            stop,
        });
        Some(Process {
            store: RedisStore(parts),
            wire,
            listener,
            tasks: Arc::default(),
            is_draining: CancellationToken::new(),
        })
    }

    /// Ends at once, between any two steps.
    pub fn kill(&self) {
        self.world
            .note(|| format!("replica {} is killed", self.index));
        if let Some(process) = self.process.lock().unwrap().take() {
            process.wire.is_dead.store(true, Ordering::Relaxed);
            for task in process.tasks.lock().unwrap().drain(..) {
                task.abort();
            }
        }
    }

    /// Hands leases back, and ends.
    pub async fn drain(&self) {
        self.world.note(|| format!("replica {} drains", self.index));
        if let Some(process) = self.process() {
            process.is_draining.cancel();
            sleep(Duration::from_millis(1_500)).await;
            process.store.close().await;
        }
        self.kill();
    }

    async fn rescue(self: Arc<Self>, store: RedisStore) {
        loop {
            sleep(self.world.some_ms(200..1_000)).await;
            let off = *self.clock_ms.lock().unwrap();
            let now = Timestamp::from_ms(self.world.lock().now_ms() + off);
            let parts = &store.0;
            let _ = rescue::rescue(&parts.steps, &parts.keys, &parts.horizon, now).await;
        }
    }
}

impl Process {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task).abort_handle();
        let mut tasks = self.tasks.lock().unwrap();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    pub fn hear(&self, news: &str) {
        self.listener.hear(news);
    }

    pub fn epoch(&self) -> String {
        self.store.0.steps.marks().known().epoch().to_owned()
    }

    pub fn is_lost(&self) -> bool {
        self.store.0.steps.marks().is_lost()
    }

    pub fn root(&self, user: &crate::domain::principal::UserId) -> String {
        self.store.0.root(user).to_owned()
    }
}

/// Leases, and runs what it gets.
async fn work(world: Shared, process: Process) {
    let bounds = Bounds {
        per_user: Some(2),
        rate: None,
        rate_per_user: Some(Rate {
            attempts: 3,
            span: Duration::from_secs(1),
        }),
    };
    let request = LeaseRequest {
        types: TYPES.map(str::to_owned).to_vec(),
        max: 2,
        holder: Holder::Inside,
        lease: TYPES.map(|name| (name.to_owned(), LEASE)).into(),
        bounds: [("plain".to_owned(), bounds)].into(),
    };
    while !process.is_draining.is_cancelled() {
        sleep(world.some_ms(20..400)).await;
        let leased_at = Instant::now();
        let Ok(leases) = process.store.lease(request.clone()).await else {
            continue;
        };
        for lease in leases {
            process.spawn(attempt(world.clone(), process.clone(), lease, leased_at));
        }
    }
}

/// Renews, and says how it ended until that is known or the lease is over.
async fn attempt(world: Shared, process: Process, lease: Lease, leased_at: Instant) {
    let held = Held {
        user: lease.task.user.clone(),
        task: lease.task.id.clone(),
        token: lease.token,
        lease: LEASE,
    };
    let store = &process.store;
    let (fate, is_calm) = {
        let mut world = world.lock();
        (world.rng.u8(..100), world.is_calm)
    };
    let (mut until, ends_at) = match fate {
        // It stands still for longer than its lease, and goes on as if nothing had been.
        0..10 if !is_calm => {
            sleep(world.some_ms(4_000..12_000)).await;
            (Instant::now() + LEASE, Instant::now())
        }
        10..30 => (
            leased_at + LEASE,
            Instant::now() + world.some_ms(2_000..9_000),
        ),
        _ => (leased_at + LEASE, Instant::now() + world.some_ms(5..800)),
    };
    while Instant::now() < ends_at && !process.is_draining.is_cancelled() {
        sleep_until(ends_at.min(Instant::now() + LEASE / 3)).await;
        if Instant::now() >= ends_at {
            break;
        }
        let began = Instant::now();
        let progress = Progress {
            done: 1.0,
            ..Progress::default()
        };
        match store.extend(held.clone(), Some(progress)).await {
            Ok(Fenced::Recorded(told)) if told.cancel_requested => break,
            Ok(Fenced::Recorded(_)) => until = began + LEASE,
            Ok(Fenced::Lost) => return,
            Err(_) if Instant::now() >= until => return,
            Err(_) => {}
        }
    }
    let error = TaskError {
        code: "broken".to_owned(),
        message: "it broke".to_owned(),
        attempt: lease.task.attempt,
        permanent: fate.is_multiple_of(23),
    };
    let is_draining = process.is_draining.is_cancelled();
    let mut pause = Duration::from_millis(50);
    loop {
        let known = match fate % 20 {
            _ if is_draining => store.release(held.clone()).await.map(|_| ()),
            0..3 if !is_calm || fate % 20 == 0 => {
                let retry_in = Some(Duration::from_millis(700));
                store
                    .fail(held.clone(), error.clone(), retry_in)
                    .await
                    .map(|_| ())
            }
            3 => store.release(held.clone()).await.map(|_| ()),
            // It ends its work without a word.
            4 if !is_calm => return,
            _ => {
                let text = format!("\"result of {} at {}\"", held.task, held.token.0);
                let result = TaskResult::Inline(RawValue::from_string(text).unwrap());
                let completed = store.complete(held.clone(), result).await;
                if let Ok(Fenced::Recorded(_)) = &completed {
                    completed_once(&world, &held);
                }
                completed.map(|_| ())
            }
        };
        if known.is_ok() || Instant::now() + pause >= until {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn completed_once(world: &Shared, held: &Held) {
    let mut world = world.lock();
    let id = held.task.as_str().to_owned();
    let token = *world.ledger.completed.entry(id).or_insert(held.token.0);
    // After a crash a success that was not written down may come once more.
    if token != held.token.0 && world.servers.len() == 1 && world.primary().boot == 1 {
        world.fail(format!(
            "{} was completed under {token} and {}",
            held.task, held.token.0
        ));
    }
}
