//! A store that holds ready tasks and leases, and writes down what becomes of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::history::History;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::quota::Spent;
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::domain::stats::Stats;
use crate::domain::task::{FencingToken, Priority, Progress, State, Task, TaskError, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{OwnSecret, WebhookSecret};
use crate::domain::worker::Worker;
use crate::store::signals::Signals;
use crate::store::*;

#[derive(Default)]
pub struct FakeStore {
    signals: Signals,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Task>,
    running: HashMap<TaskId, Task>,
    most_running: HashMap<String, usize>,
    events: Vec<Event>,
    extensions: usize,
    reports_to_fail: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Completed(String),
    CompletedInBlob(u64),
    /// Code, and whether for good.
    Failed(String, bool),
    Released,
}

impl FakeStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn add(&self, task_type: &str, params: &str) -> TaskId {
        let user = UserId::anonymous();
        let id = TaskId::random(&user);
        let params = RawValue::from_string(params.to_owned()).unwrap();
        self.inner().ready.push_back(Task {
            id: id.clone(),
            task_type: task_type.into(),
            state: State::Queued,
            user,
            fingerprint: None,
            params: Arc::from(params),
            files: Vec::new(),
            priority: Priority::DEFAULT,
            tags: BTreeMap::new(),
            attempt: 0,
            max_attempts: 4,
            progress: None,
            created_at: Timestamp::default(),
            scheduled_at: None,
            started_at: None,
            finished_at: None,
            next_attempt_at: None,
            dedup_expires_at: None,
            outcome: None,
            error: None,
            duplicates: 0,
            superseded_by: None,
            throttles_until: None,
            changes: Default::default(),
        });
        self.signals.work_is_ready();
        id
    }

    pub fn events(&self) -> Vec<Event> {
        self.inner().events.clone()
    }

    pub fn extensions(&self) -> usize {
        self.inner().extensions
    }

    pub fn most_running(&self, task_type: &str) -> usize {
        self.inner()
            .most_running
            .get(task_type)
            .copied()
            .unwrap_or(0)
    }

    pub fn cancel_running(&self, id: &TaskId) {
        if let Some(task) = self.inner().running.get_mut(id) {
            task.state = State::Cancelled;
        }
        self.signals.task_changed(id);
    }

    pub fn lose(&self, id: &TaskId) {
        self.inner().running.remove(id);
    }

    pub fn fail_next_reports(&self, count: usize) {
        self.inner().reports_to_fail = count;
    }

    pub async fn until(&self, events: usize) {
        self.wait_for(|inner| inner.events.len() >= events).await;
    }

    pub async fn until_leased(&self, id: &TaskId) {
        self.wait_for(|inner| inner.running.contains_key(id)).await;
        // The attempt registers its watch after its lease.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    async fn wait_for(&self, done: impl Fn(&Inner) -> bool) {
        let waiting = async {
            while !done(&self.inner()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap();
    }

    fn report(&self, held: &Held, event: Event) -> Result<Fenced<Task>, StoreError> {
        let mut inner = self.inner();
        if inner.reports_to_fail > 0 {
            inner.reports_to_fail -= 1;
            return unavailable();
        }
        let Some(task) = inner.running.remove(&held.task) else {
            return Ok(Fenced::Lost);
        };
        inner.events.push(event);
        Ok(Fenced::Recorded(task))
    }
}

fn unavailable<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("not here".into()))
}

#[async_trait]
impl Store for FakeStore {
    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>, StoreError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut inner = self.inner();
        let mut leases = Vec::new();
        let mut passed_over = VecDeque::new();
        while leases.len() < request.max
            && let Some(mut task) = inner.ready.pop_front()
        {
            if !request.types.contains(&task.task_type) {
                passed_over.push_back(task);
                continue;
            }
            assert!(request.lease.contains_key(&task.task_type));
            task.state = State::Running;
            task.attempt += 1;
            inner.running.insert(task.id.clone(), task.clone());
            let of_type = |t: &&Task| t.task_type == task.task_type;
            if inner.running.len() < 1000 {
                let running = inner.running.values().filter(of_type).count();
                let most = inner
                    .most_running
                    .entry(task.task_type.clone())
                    .or_default();
                *most = running.max(*most);
            }
            leases.push(Lease {
                task,
                token: FencingToken(1),
                expires_at: Timestamp::MAX,
                idempotency_key: None,
            });
        }
        passed_over.append(&mut inner.ready);
        inner.ready = passed_over;
        Ok(leases)
    }

    async fn extend(
        &self,
        held: Held,
        _: Option<Progress>,
    ) -> Result<Fenced<Extension>, StoreError> {
        let mut inner = self.inner();
        inner.extensions += 1;
        Ok(match inner.running.get(&held.task) {
            None => Fenced::Lost,
            Some(task) => Fenced::Recorded(Extension {
                expires_at: Timestamp::MAX,
                cancel_requested: task.state == State::Cancelled,
            }),
        })
    }

    async fn hand_over(&self, held: Held, _: &str) -> Result<Fenced<Extension>, StoreError> {
        self.extend(held, None).await
    }

    async fn complete(&self, held: Held, result: TaskResult) -> Result<Fenced<Task>, StoreError> {
        let event = match result {
            TaskResult::Inline(json) => Event::Completed(json.get().to_owned()),
            TaskResult::Blob { size, .. } => Event::CompletedInBlob(size),
        };
        self.report(&held, event)
    }

    async fn fail(
        &self,
        held: Held,
        error: TaskError,
        retry_in: Option<Duration>,
    ) -> Result<Fenced<Task>, StoreError> {
        let near = Duration::from_secs(54)..=Duration::from_secs(66);
        assert!(
            retry_in.is_none_or(|delay| near.contains(&delay)),
            "{retry_in:?}"
        );
        assert_eq!(retry_in.is_none(), error.permanent);
        self.report(&held, Event::Failed(error.code, error.permanent))
    }

    async fn release(&self, held: Held) -> Result<Fenced<()>, StoreError> {
        match self.report(&held, Event::Released)? {
            Fenced::Recorded(_) => Ok(Fenced::Recorded(())),
            Fenced::Lost => Ok(Fenced::Lost),
        }
    }

    async fn get(&self, _: &UserId, id: &TaskId) -> Result<Found<Task>, StoreError> {
        Ok(match self.inner().running.get(id) {
            Some(task) => Found::Here(task.clone()),
            None => Found::Missing(Missing::Unknown),
        })
    }

    fn signals(&self) -> &Signals {
        &self.signals
    }

    // What a pool does not ask for.
    async fn admit(&self, _: Admission) -> Result<Admitted, StoreError> {
        unavailable()
    }
    async fn check(&self, _: Admission) -> Result<Checked, StoreError> {
        unavailable()
    }
    async fn withdraw(
        &self,
        _: &UserId,
        _: &TaskId,
        _: &IdempotencyKey,
    ) -> Result<Withdrawn, StoreError> {
        unavailable()
    }
    async fn cancel(&self, _: &UserId, _: &TaskId) -> Result<Cancelled, StoreError> {
        unavailable()
    }
    async fn held(&self, _: &Held) -> Result<Fenced<Task>, StoreError> {
        unavailable()
    }
    async fn workers(&self, _: Worker) -> Result<Vec<Worker>, StoreError> {
        unavailable()
    }
    async fn pause(&self, _: &str) -> Result<(), StoreError> {
        unavailable()
    }
    async fn resume(&self, _: &str) -> Result<(), StoreError> {
        unavailable()
    }
    async fn paused(&self) -> Result<BTreeSet<String>, StoreError> {
        unavailable()
    }
    async fn put_schedule(&self, _: NewSchedule) -> Result<PutSchedule, StoreError> {
        unavailable()
    }
    async fn schedule(&self, _: &UserId, _: &ScheduleName) -> Result<Option<Schedule>, StoreError> {
        unavailable()
    }
    async fn schedules(&self, _: &UserId) -> Result<Vec<Schedule>, StoreError> {
        unavailable()
    }
    async fn delete_schedule(&self, _: &UserId, _: &ScheduleName) -> Result<bool, StoreError> {
        unavailable()
    }
    async fn due_schedules(&self, _: Vec<String>, _: usize) -> Result<DueSchedules, StoreError> {
        unavailable()
    }
    async fn record_firing(&self, _: Firing) -> Result<bool, StoreError> {
        unavailable()
    }
    async fn redrive(&self, _: &UserId, _: &TaskId) -> Result<Redriven, StoreError> {
        unavailable()
    }
    async fn redrive_many(&self, _: &UserId, _: RedriveFilter) -> Result<RedrivenMany, StoreError> {
        unavailable()
    }
    async fn forget(&self, _: &UserId, _: &TaskId) -> Result<Forgotten, StoreError> {
        unavailable()
    }
    async fn rescue(&self) -> Result<Rescued, StoreError> {
        unavailable()
    }
    async fn list(&self, _: &UserId, _: ListFilter) -> Result<Page, StoreError> {
        unavailable()
    }
    async fn ledger(&self, _: &UserId, _: &TaskId) -> Result<Found<Vec<LedgerEntry>>, StoreError> {
        unavailable()
    }
    async fn stats(&self, _: Option<&UserId>) -> Result<Stats, StoreError> {
        unavailable()
    }
    async fn spend_request(&self, _: &UserId, _: u32) -> Result<Spent, StoreError> {
        unavailable()
    }
    fn record_submit_latency(&self, _: &UserId, _: Duration) {}
    async fn file(&self, _: &UserId, _: &Sha256Digest) -> Result<Option<File>, StoreError> {
        unavailable()
    }
    async fn keep_file(&self, _: &UserId, _: File) -> Result<Option<File>, StoreError> {
        unavailable()
    }
    async fn history(&self, _: &UserId, _: Timestamp, _: Timestamp) -> Result<History, StoreError> {
        unavailable()
    }
    async fn unreferenced(
        &self,
        _: &UserId,
        _: Timestamp,
        _: Option<FileCursor>,
    ) -> Result<UnreferencedFiles, StoreError> {
        unavailable()
    }
    async fn forget_file(
        &self,
        _: &UserId,
        _: &BlobName,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        unavailable()
    }
    async fn unowned(&self, _: Vec<BlobName>) -> Result<Vec<BlobName>, StoreError> {
        unavailable()
    }
    async fn create_first_api_key(&self, _: ApiKey) -> Result<bool, StoreError> {
        unavailable()
    }

    async fn webhook_secret(&self, _: &UserId) -> Result<Option<OwnSecret>, StoreError> {
        unreachable!()
    }

    async fn set_webhook_secret(
        &self,
        _: &UserId,
        _: &WebhookSecret,
        _: Duration,
    ) -> Result<OwnSecret, StoreError> {
        unreachable!()
    }

    async fn create_api_key(&self, _: ApiKey) -> Result<(), StoreError> {
        unavailable()
    }
    async fn api_key(&self, _: &str) -> Result<Option<ApiKey>, StoreError> {
        unavailable()
    }
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        unavailable()
    }
    async fn revoke_api_key(&self, _: &str) -> Result<bool, StoreError> {
        unavailable()
    }
    async fn ping(&self) -> Result<(), StoreError> {
        unavailable()
    }
    fn durability(&self) -> Durability {
        Durability::Memory
    }
    async fn close(&self) {}
}
