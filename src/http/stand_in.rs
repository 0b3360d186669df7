//! A store and blobs for tests of what surrounds the handlers: they keep API keys, and fail on demand.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{Api, AuthMode, Edge, Parts};
use crate::blobs::{Blob, BlobError, Blobs, Incoming};
use crate::catalogue::Catalogue;
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::history::History;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::quota::Spent;
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::domain::stats::{Latencies, StateCounts, Stats, Windows};
use crate::domain::task::{Progress, State, Task, TaskError, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{OwnSecret, WebhookSecret};
use crate::domain::worker::Worker;
use crate::limits::Limits;
use crate::store::request_windows::RequestWindows;
use crate::store::signals::Signals;
use crate::store::*;
use crate::worker_gauge::WorkerGauge;

/// The parts of an [`Api`] over a stand-in store, for tests to change before use.
pub fn parts(store: &Arc<StandIn>, auth: AuthMode) -> Parts {
    let limits = Limits::default();
    Parts {
        store: store.clone(),
        blobs: store.clone(),
        types: Catalogue::default(),
        waiting: Semaphore::new(limits.waiting_requests_max),
        streams: Arc::new(Semaphore::new(limits.event_streams_max)),
        limits,
        edge: Edge {
            auth,
            cors_origins: Vec::new(),
            base_path: String::new(),
            public_url: None,
            trusted_proxies: Vec::new(),
        },
        unfinished: TaskTracker::new(),
        draining: CancellationToken::new(),
        workers: WorkerGauge::new("w".into(), Default::default(), 4),
        sandbox: vec!["rlimits".to_owned()],
    }
}

pub fn api(store: &Arc<StandIn>, auth: AuthMode) -> Api {
    Api::new(parts(store, auth))
}

#[derive(Default)]
pub struct StandIn {
    keys: Mutex<HashMap<String, ApiKey>>,
    signals: Signals,
    requests: RequestWindows,
    /// How often a key was looked up.
    pub look_ups: AtomicUsize,
    /// How often tasks were listed; there are none.
    pub lists: AtomicUsize,
    /// Whether the store fails.
    pub is_down: AtomicBool,
    /// Whether the blobs fail.
    pub blobs_are_down: AtomicBool,
    /// Whether the store panics, as no store should.
    pub panics: AtomicBool,
}

impl StandIn {
    fn step<T>(&self, value: T) -> Result<T, StoreError> {
        assert!(!self.panics.load(Ordering::Relaxed), "the stand-in panics");
        if self.is_down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("secret cause".into()));
        }
        Ok(value)
    }
}

/// What no test of this folder's edge comes to.
fn beyond<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the stand-in has no tasks".into()))
}

#[async_trait]
impl Store for StandIn {
    async fn admit(&self, _: Admission) -> Result<Admitted, StoreError> {
        beyond()
    }
    async fn check(&self, _: Admission) -> Result<Checked, StoreError> {
        beyond()
    }
    async fn lease(&self, _: LeaseRequest) -> Result<Vec<Lease>, StoreError> {
        beyond()
    }
    async fn held(&self, _: &Held) -> Result<Fenced<Task>, StoreError> {
        beyond()
    }
    async fn workers(&self, own: Worker) -> Result<Vec<Worker>, StoreError> {
        self.step(vec![own])
    }
    async fn pause(&self, _: &str) -> Result<(), StoreError> {
        beyond()
    }
    async fn resume(&self, _: &str) -> Result<(), StoreError> {
        beyond()
    }
    async fn paused(&self) -> Result<BTreeSet<String>, StoreError> {
        self.step(BTreeSet::new())
    }
    async fn put_schedule(&self, _: NewSchedule) -> Result<PutSchedule, StoreError> {
        beyond()
    }
    async fn schedule(&self, _: &UserId, _: &ScheduleName) -> Result<Option<Schedule>, StoreError> {
        beyond()
    }
    async fn schedules(&self, _: &UserId) -> Result<Vec<Schedule>, StoreError> {
        beyond()
    }
    async fn delete_schedule(&self, _: &UserId, _: &ScheduleName) -> Result<bool, StoreError> {
        beyond()
    }
    async fn due_schedules(&self, _: Vec<String>, _: usize) -> Result<DueSchedules, StoreError> {
        beyond()
    }
    async fn record_firing(&self, _: Firing) -> Result<bool, StoreError> {
        beyond()
    }
    async fn extend(&self, _: Held, _: Option<Progress>) -> Result<Fenced<Extension>, StoreError> {
        beyond()
    }
    async fn hand_over(&self, _: Held, _: &str) -> Result<Fenced<Extension>, StoreError> {
        beyond()
    }
    async fn complete(&self, _: Held, _: TaskResult) -> Result<Fenced<Task>, StoreError> {
        beyond()
    }
    async fn fail(
        &self,
        _: Held,
        _: TaskError,
        _: Option<Duration>,
    ) -> Result<Fenced<Task>, StoreError> {
        beyond()
    }
    async fn release(&self, _: Held) -> Result<Fenced<()>, StoreError> {
        beyond()
    }
    async fn withdraw(
        &self,
        _: &UserId,
        _: &TaskId,
        _: &IdempotencyKey,
    ) -> Result<Withdrawn, StoreError> {
        beyond()
    }
    async fn cancel(&self, _: &UserId, _: &TaskId) -> Result<Cancelled, StoreError> {
        beyond()
    }
    async fn redrive(&self, _: &UserId, _: &TaskId) -> Result<Redriven, StoreError> {
        beyond()
    }
    async fn redrive_many(&self, _: &UserId, _: RedriveFilter) -> Result<RedrivenMany, StoreError> {
        beyond()
    }
    async fn forget(&self, _: &UserId, _: &TaskId) -> Result<Forgotten, StoreError> {
        beyond()
    }
    async fn rescue(&self) -> Result<Rescued, StoreError> {
        beyond()
    }
    async fn get(&self, _: &UserId, _: &TaskId) -> Result<Found<Task>, StoreError> {
        beyond()
    }
    async fn list(&self, _: &UserId, _: ListFilter) -> Result<Page, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let (tasks, next) = (Vec::new(), None);
        self.step(Page { tasks, next })
    }
    async fn ledger(&self, _: &UserId, _: &TaskId) -> Result<Found<Vec<LedgerEntry>>, StoreError> {
        beyond()
    }

    /// One queued task for one user, two for all.
    async fn stats(&self, user: Option<&UserId>) -> Result<Stats, StoreError> {
        let mut counts = StateCounts::default();
        counts.add(State::Queued, if user.is_some() { 1 } else { 2 });
        self.step(Stats {
            generated_at: Timestamp::from_ms(0),
            counts,
            by_type: [("echo".to_owned(), counts)].into(),
            queue_oldest_seconds: 1.5,
            running: 0,
            latency: Latencies::default(),
            windows: Windows::default(),
        })
    }
    async fn spend_request(&self, user: &UserId, max: u32) -> Result<Spent, StoreError> {
        self.step(())?;
        Ok(self.requests.spend(user, max, Instant::now()))
    }
    fn record_submit_latency(&self, _: &UserId, _: Duration) {}

    async fn file(&self, _: &UserId, _: &Sha256Digest) -> Result<Option<File>, StoreError> {
        beyond()
    }
    async fn keep_file(&self, _: &UserId, _: File) -> Result<Option<File>, StoreError> {
        beyond()
    }
    async fn history(&self, _: &UserId, _: Timestamp, _: Timestamp) -> Result<History, StoreError> {
        beyond()
    }
    async fn unreferenced(
        &self,
        _: &UserId,
        _: Timestamp,
        _: Option<FileCursor>,
    ) -> Result<UnreferencedFiles, StoreError> {
        beyond()
    }
    async fn forget_file(
        &self,
        _: &UserId,
        _: &BlobName,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        beyond()
    }
    async fn unowned(&self, _: Vec<BlobName>) -> Result<Vec<BlobName>, StoreError> {
        beyond()
    }

    async fn create_first_api_key(&self, key: ApiKey) -> Result<bool, StoreError> {
        self.create_api_key(key).await.map(|()| true)
    }

    async fn webhook_secret(&self, _: &UserId) -> Result<Option<OwnSecret>, StoreError> {
        beyond()
    }

    async fn set_webhook_secret(
        &self,
        _: &UserId,
        _: &WebhookSecret,
        _: Duration,
    ) -> Result<OwnSecret, StoreError> {
        beyond()
    }

    async fn create_api_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.keys.lock().unwrap().insert(key.id.clone(), key);
        self.step(())
    }
    async fn api_key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        self.step(self.keys.lock().unwrap().get(id).cloned())
    }
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.step(self.keys.lock().unwrap().values().cloned().collect())
    }
    async fn revoke_api_key(&self, id: &str) -> Result<bool, StoreError> {
        let was_there = self.keys.lock().unwrap().remove(id).is_some();
        self.step(was_there)
    }

    fn signals(&self) -> &Signals {
        &self.signals
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.step(())
    }
    fn durability(&self) -> Durability {
        Durability::Memory
    }
    async fn close(&self) {}
}

#[async_trait]
impl Blobs for StandIn {
    async fn receive(&self) -> Result<Box<dyn Incoming>, BlobError> {
        Err(BlobError::Full)
    }
    async fn open(&self, _: &BlobName) -> Result<Blob, BlobError> {
        Err(BlobError::Missing)
    }
    async fn local_path(&self, _: &BlobName) -> Result<PathBuf, BlobError> {
        Err(BlobError::Missing)
    }
    async fn delete(&self, _: &BlobName) -> Result<(), BlobError> {
        Ok(())
    }
    async fn list_older(
        &self,
        _: Duration,
        _: Option<&BlobName>,
        _: usize,
    ) -> Result<Vec<BlobName>, BlobError> {
        Ok(Vec::new())
    }
    async fn ping(&self) -> Result<(), BlobError> {
        match self.blobs_are_down.load(Ordering::Relaxed) {
            true => Err(BlobError::Failed("no disk".into())),
            false => Ok(()),
        }
    }
}
