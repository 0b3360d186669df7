//! Leases work in batches and starts an attempt for each lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Workshop;
use super::attempt::Execution;
use super::lanes::{Ask, Lanes};
use super::report;
use crate::domain::task_type::TaskType;
use crate::failpoints::FailPoint;
use crate::store::{Held, Holder, Lease, LeaseRequest, StoreError};

/// One for each process.
pub struct Pool {
    shop: Workshop,
    /// Shows a new workshop when the types were declared anew.
    shops: watch::Receiver<Workshop>,
    lanes: Lanes,
    /// How long leases last, by type.
    leases: HashMap<String, Duration>,
    /// Attempts that run; each gives back the slot of its type.
    running: JoinSet<Arc<TaskType>>,
    /// How many of each type.
    running_of: HashMap<String, usize>,
    /// When every lane was last thought to have work.
    looked_at: Instant,
    end: End,
}

/// The two steps in which a process ends.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Lease no more.
    pub stop: CancellationToken,
    /// Stop what runs, and hand it back.
    pub hand_back: CancellationToken,
}

/// Signals give latency; this poll gives correctness.
const POLL: Duration = Duration::from_secs(1);
/// After a lease that failed.
const PAUSE: Duration = Duration::from_millis(250);

impl Pool {
    pub fn new(mut shops: watch::Receiver<Workshop>, end: End) -> Self {
        let shop = shops.borrow_and_update().clone();
        Pool {
            lanes: Lanes::new(&shop),
            leases: leases(&shop),
            running: JoinSet::new(),
            running_of: HashMap::new(),
            looked_at: Instant::now(),
            shop,
            shops,
            end,
        }
    }

    /// Runs until it is told to stop and every attempt has ended.
    pub async fn run(mut self) {
        while !self.end.stop.is_cancelled() {
            self.hear();
            let asks = self.lanes.asks();
            if asks.is_empty() {
                self.wait().await;
                continue;
            }
            if !self.lease(asks).await {
                self.pause().await;
            }
            self.reap();
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Leases for all lanes that have room. False when the store did not answer.
    async fn lease(&mut self, asks: Vec<Ask>) -> bool {
        let asked_at = Instant::now();
        let calls = asks.iter().map(|ask| self.call(ask));
        let answers = join_all(calls).await;
        let mut answered = true;
        for (ask, answer) in asks.iter().zip(answers) {
            match answer {
                Ok(leases) => {
                    if leases.len() < ask.max {
                        self.lanes.drained(ask.lane);
                    }
                    if !leases.is_empty() {
                        FailPoint::AfterLease.reached();
                    }
                    for lease in leases {
                        self.begin(lease, asked_at);
                    }
                }
                // What was leased and not heard of comes back when its lease ends.
                Err(error) => {
                    tracing::warn!(%error, "cannot lease");
                    answered = false;
                }
            }
        }
        answered
    }

    async fn call(&self, ask: &Ask) -> Result<Vec<Lease>, StoreError> {
        let lease = |name: &String| Some((name.clone(), *self.leases.get(name)?));
        let bounds = |name: &String| Some((name.clone(), self.shop.types.get(name)?.bounds()));
        let request = LeaseRequest {
            types: ask.types.clone(),
            max: ask.max,
            holder: Holder::Inside,
            lease: ask.types.iter().filter_map(lease).collect(),
            bounds: ask.types.iter().filter_map(bounds).collect(),
        };
        self.shop.store.lease(request).await
    }

    fn begin(&mut self, lease: Lease, asked_at: Instant) {
        let name = lease.task.task_type.as_str();
        let known = self.shop.types.get(name).zip(self.shop.runners.get(name));
        let (Some((made, runner)), Some(lane)) = (known, self.lanes.of_type(name)) else {
            tracing::error!(
                task_type = name,
                "the store leased a type that was not asked for"
            );
            return;
        };
        let held = Held {
            user: lease.task.user.clone(),
            task: lease.task.id.clone(),
            token: lease.token,
            lease: made.lease,
        };
        if self.end.stop.is_cancelled() {
            let shop = self.shop.clone();
            let (until, made) = (asked_at + made.lease, made.clone());
            self.began(lane, &made);
            self.running.spawn(async move {
                report::release(&shop, held, until).await;
                made
            });
            return;
        }
        let execution = Execution {
            shop: self.shop.clone(),
            task_type: made.clone(),
            runner: runner.clone(),
            held,
            lease,
            leased_at: asked_at,
            hand_back: self.end.hand_back.clone(),
        };
        let busy = self.shop.gauge.begin(&execution.held.task);
        let made = execution.task_type.clone();
        self.began(lane, &made);
        self.running.spawn(async move {
            execution.run().await;
            drop(busy);
            made
        });
    }

    fn began(&mut self, lane: usize, made: &TaskType) {
        self.lanes.began(lane, &made.name);
        *self.running_of.entry(made.name.clone()).or_default() += 1;
    }

    /// Goes on with the types as they are declared now. What runs counts against today's bounds.
    fn refit(&mut self) {
        self.shop = self.shops.borrow_and_update().clone();
        self.lanes = Lanes::new(&self.shop);
        self.leases = leases(&self.shop);
        for (name, &count) in &self.running_of {
            if let Some(lane) = self.lanes.of_type(name) {
                (0..count).for_each(|_| self.lanes.began(lane, name));
            }
        }
    }

    /// Takes news in without waiting for it: one busy lane must not keep the others from theirs.
    fn hear(&mut self) {
        let signalled = self.shop.store.signals().work().now_or_never().is_some();
        if self.shops.has_changed().unwrap_or(false) {
            self.refit();
        }
        if signalled || self.looked_at.elapsed() >= POLL {
            self.look_everywhere();
        }
    }

    fn look_everywhere(&mut self) {
        self.looked_at = Instant::now();
        self.lanes.all_promising();
    }

    /// Until there may be something to lease.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.end.stop.cancelled() => {}
            () = self.shop.store.signals().work() => self.look_everywhere(),
            () = tokio::time::sleep(jittered(POLL)) => self.look_everywhere(),
            Ok(()) = self.shops.changed() => self.refit(),
            Some(ended) = self.running.join_next() => {
                self.note(ended);
                self.reap();
            }
        }
    }

    async fn pause(&self) {
        tokio::select! {
            () = self.end.stop.cancelled() => {}
            () = tokio::time::sleep(jittered(PAUSE)) => {}
        }
    }

    /// Notes every attempt that has ended by now, so that one call leases for all their slots.
    fn reap(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            self.note(ended);
        }
    }

    /// Attempts catch the panics of their runners; one of our own would lose a slot for good, and
    /// is a defect.
    fn note(&mut self, ended: Result<Arc<TaskType>, tokio::task::JoinError>) {
        let made = match ended {
            Ok(made) => made,
            Err(error) => return tracing::error!(%error, "an attempt broke off"),
        };
        if let Some(count) = self.running_of.get_mut(&made.name) {
            *count = count.saturating_sub(1);
        }
        if let Some(lane) = self.lanes.of_type(&made.name) {
            self.lanes.ended(lane, &made.name);
        }
    }
}

fn leases(shop: &Workshop) -> HashMap<String, Duration> {
    let lease = |made: &Arc<TaskType>| (made.name.clone(), made.lease);
    shop.types.iter().map(lease).collect()
}

/// 80 to 120 % of it, so that replicas do not move in step.
fn jittered(span: Duration) -> Duration {
    span.mul_f64(0.8 + 0.4 * fastrand::f64())
}
