//! Stores to put through the conformance suite, and what to put into them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use justonce::domain::callback::Callback;
use justonce::domain::file::File;
use justonce::domain::idempotency_key::IdempotencyKey;
use justonce::domain::principal::UserId;
use justonce::domain::retry::RetryPolicy;
use justonce::domain::submission::{DedupRequest, Start, Submission};
use justonce::domain::task::{Priority, Task, TaskError, TaskId};
use justonce::domain::task_type::{
    DedupMode, DedupPolicy, FilesRule, OnOlderVersion, Retention, RunnerSpec, TaskType,
};
use justonce::domain::timestamp::Timestamp;
use justonce::domain::worker::{Place, Worker};
use justonce::store::audit::Audit;
use justonce::store::embedded::{EmbeddedStore, Location};
use justonce::store::redis::{Address, Options, RedisStore};
use justonce::store::{
    Admission, Admitted, Fenced, Found, Held, Holder, Lease, LeaseRequest, Rescued, Store,
    StoreError, TaskResult,
};
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::deadline::until;

/// A store under test, and where it lives.
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub home: Home,
}

/// Where a store keeps its records.
#[derive(Clone)]
pub enum Home {
    Memory,
    Folder(Arc<TempDir>),
    Redis(Box<Options>),
}

impl Home {
    /// Fails if records contradict each other.
    pub async fn expect_sound(&self) {
        let mut audit = Audit::default();
        match self {
            Home::Memory => return,
            Home::Folder(folder) => {
                let auditor = justonce::store::embedded::Auditor::open(folder.path()).unwrap();
                auditor.run(&mut audit).unwrap();
            }
            Home::Redis(options) => {
                let auditor = justonce::store::redis::Auditor::open(options)
                    .await
                    .unwrap()
                    .unwrap();
                auditor.run(&mut audit).await.unwrap();
            }
        }
        assert_eq!(audit.wrong(), 0, "{:#?}", audit.findings());
    }
}

/// SQLite in a file.
pub async fn embedded() -> Subject {
    let folder = TempDir::new().unwrap();
    let store = open(Location::Folder(PathBuf::from(folder.path())), 1_000_000);
    Subject {
        store,
        home: Home::Folder(Arc::new(folder)),
    }
}

/// SQLite in memory.
pub async fn memory() -> Subject {
    memory_with(1_000_000).await
}

/// SQLite in memory, with room for so many unfinished tasks.
pub async fn memory_with(queue_tasks_max: u64) -> Subject {
    Subject {
        store: open(Location::Memory, queue_tasks_max),
        home: Home::Memory,
    }
}

/// Redis, under a prefix of its own.
pub async fn redis() -> Subject {
    redis_with(1_000_000).await
}

/// Redis, with room for so many unfinished tasks.
pub async fn redis_with(queue_tasks_max: u64) -> Subject {
    replica(&super::redis::prefix(), queue_tasks_max).await
}

/// Redis, under a prefix that several share.
pub async fn redis_under(prefix: &str) -> Subject {
    replica(prefix, 1_000_000).await
}

/// One more store over what is under this prefix, as another replica opens it.
async fn replica(prefix: &str, queue_tasks_max: u64) -> Subject {
    // `TEST_REDIS_URL` names a cluster, or whatever else the promises are to be held against.
    let url = std::env::var("TEST_REDIS_URL").unwrap_or_else(|_| super::redis::shared().url());
    let options = Options {
        prefix: prefix.to_owned(),
        queue_tasks_max,
        ..redis_options(&url)
    };
    redis_of(options).await
}

async fn redis_of(options: Options) -> Subject {
    Subject {
        store: Arc::new(RedisStore::open(options.clone()).await.unwrap()),
        home: Home::Redis(Box::new(options)),
    }
}

/// What a store in Redis needs, under a prefix of its own.
pub fn redis_options(url: &str) -> Options {
    Options {
        prefix: super::redis::prefix(),
        queue_tasks_max: 1_000_000,
        orphans_kept_for: Duration::ZERO,
        ..Options::at(Address::parse(url).unwrap())
    }
}

/// A store over the Redis at this address.
pub async fn redis_at(url: &str) -> Subject {
    redis_under_at(&super::redis::prefix(), url).await
}

/// A store over the Redis at this address, under a prefix that several share.
pub async fn redis_under_at(prefix: &str, url: &str) -> Subject {
    let options = Options {
        prefix: prefix.to_owned(),
        ..redis_options(url)
    };
    redis_of(options).await
}

fn open(location: Location, queue_tasks_max: u64) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(&location, queue_tasks_max).unwrap())
}

/// A lease that no test outlives.
pub const LONG: Duration = Duration::from_secs(3600);

/// The shortest lease: over before a test looks again.
pub const SHORT: Duration = Duration::from_millis(50);

/// A type with plain rules: windows of an hour, four attempts.
pub fn plain_type() -> TaskType {
    TaskType {
        name: "plain".to_owned(),
        description: String::new(),
        runner: RunnerSpec::Builtin("echo".to_owned()),
        params_schema: None,
        params_check: None,
        version: 1,
        require_key: false,
        files: FilesRule::Optional,
        dedup: DedupPolicy {
            mode: DedupMode::Return,
            by: Vec::new(),
            debounce: None,
            ignore: vec![],
            file_name: false,
            group: None,
            window: Duration::from_secs(3600),
            window_max: Duration::from_secs(86_400),
            max_resubmissions: 3,
            on_older_version: OnOlderVersion::Rerun,
        },
        retry: RetryPolicy {
            max_attempts: 4,
            first_delay: Duration::from_secs(60),
            factor: RetryPolicy::FACTOR,
            max_delay: RetryPolicy::MAX_DELAY,
            jitter: RetryPolicy::JITTER,
        },
        timeout: Duration::from_secs(3600),
        lease: Duration::from_secs(30),
        priority: Priority::DEFAULT,
        concurrency: None,
        concurrency_per_user: None,
        concurrency_key: None,
        rate: None,
        rate_per_user: None,
        ageing: Priority::AGEING,
        retention: Retention::default(),
    }
}

/// A submission in the making.
#[derive(Clone)]
pub struct Draft {
    user: UserId,
    key: Option<IdempotencyKey>,
    submission: Submission,
    unfinished_max: Option<u64>,
}

pub fn draft(params: Value) -> Draft {
    draft_of(plain_type(), params)
}

pub fn draft_of(task_type: TaskType, params: Value) -> Draft {
    let submission = Submission {
        task_type: Arc::new(task_type),
        params,
        files: vec![],
        priority: None,
        start: Start::Now,
        dedup: DedupRequest::default(),
        tags: BTreeMap::new(),
        callback: None,
    };
    Draft {
        user: user(),
        key: None,
        submission,
        unfinished_max: None,
    }
}

impl Draft {
    pub fn user(mut self, name: &str) -> Self {
        self.user = UserId::parse(name).unwrap();
        self
    }

    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(IdempotencyKey::parse(key.as_bytes()).unwrap());
        self
    }

    /// The user may have so many unfinished tasks.
    pub fn quota(mut self, unfinished_max: u64) -> Self {
        self.unfinished_max = Some(unfinished_max);
        self
    }

    pub fn file(mut self, file: &File) -> Self {
        self.submission.files.push(file.clone());
        self
    }

    pub fn tag(mut self, name: &str, value: &str) -> Self {
        self.submission
            .tags
            .insert(name.to_owned(), value.to_owned());
        self
    }

    /// With somebody to tell of its end.
    pub fn callback(self, url: &str) -> Self {
        let deliveries = TaskType {
            name: Callback::TASK_TYPE.to_owned(),
            ..plain_type()
        };
        let callback = Callback::to(url, &deliveries).unwrap();
        self.with(|submission| submission.callback = Some(callback))
    }

    pub fn with(mut self, change: impl FnOnce(&mut Submission)) -> Self {
        change(&mut self.submission);
        self
    }

    /// Every call makes an admission with a nonce of its own.
    pub fn admission(&self) -> Admission {
        let request = "request".to_owned();
        let admission = Admission::new(
            self.user.clone(),
            self.key.clone(),
            self.submission.clone(),
            request.into(),
        );
        Admission {
            unfinished_max: self.unfinished_max,
            ..admission
        }
    }
}

pub fn user() -> UserId {
    UserId::parse("user123").unwrap()
}

impl Subject {
    pub async fn admit(&self, draft: &Draft) -> Admitted {
        self.store.admit(draft.admission()).await.unwrap()
    }

    /// Admits as soon as the store serves. Until then it may only be unavailable.
    pub async fn admit_soon(&self, draft: &Draft) -> Admitted {
        let admission = draft.admission();
        until("the store to serve", async || {
            match self.store.admit(admission.clone()).await {
                Ok(admitted) => Some(admitted),
                Err(StoreError::Unavailable(_)) => None,
                Err(other) => panic!("{other}"),
            }
        })
        .await
    }

    /// Admits what must be new.
    pub async fn new_task(&self, draft: &Draft) -> Task {
        match self.admit(draft).await {
            Admitted::New(answer) => *answer.task,
            other => panic!("not new: {other:?}"),
        }
    }

    /// Leases up to `max` tasks of the plain type for `lease`, as they are ready now.
    pub async fn lease_many(&self, max: usize, lease: Duration) -> Vec<Lease> {
        let request = LeaseRequest {
            types: vec!["plain".to_owned()],
            max,
            holder: Holder::Inside,
            lease: HashMap::from([("plain".to_owned(), lease)]),
            bounds: HashMap::new(),
        };
        self.store.lease(request).await.unwrap()
    }

    /// Leases the next task, as soon as it is due.
    pub async fn lease(&self, lease: Duration) -> Lease {
        until("a task to lease", async || {
            self.rescue().await;
            self.lease_many(1, lease).await.pop()
        })
        .await
    }

    pub async fn rescue(&self) -> Rescued {
        self.store.rescue().await.unwrap()
    }

    pub async fn complete(&self, lease: &Lease, result: &str) -> Fenced<Task> {
        self.store
            .complete(held(lease), inline(result))
            .await
            .unwrap()
    }

    pub async fn fail(&self, lease: &Lease, retry_in: Option<Duration>) -> Fenced<Task> {
        let error = TaskError {
            code: "broken".to_owned(),
            message: "it broke".to_owned(),
            attempt: lease.task.attempt,
            permanent: retry_in.is_none(),
        };
        self.store.fail(held(lease), error, retry_in).await.unwrap()
    }

    /// Admits, leases and completes one task.
    pub async fn succeeded(&self, draft: &Draft) -> Task {
        let id = self.new_task(draft).await.id;
        let lease = self.lease(LONG).await;
        assert_eq!(lease.task.id, id, "another task was ready");
        recorded(self.complete(&lease, "1").await)
    }

    /// Admits, leases and fails one task for good.
    pub async fn failed(&self, draft: &Draft) -> Task {
        let id = self.new_task(draft).await.id;
        let lease = self.lease(LONG).await;
        assert_eq!(lease.task.id, id, "another task was ready");
        recorded(self.fail(&lease, None).await)
    }

    pub async fn task(&self, id: &TaskId) -> Task {
        match self.store.get(&user(), id).await.unwrap() {
            Found::Here(task) => task,
            Found::Missing(why) => panic!("{id} is missing: {why:?}"),
        }
    }

    /// The same store after its process has ended and another has begun.
    pub async fn reopened(self) -> Subject {
        self.store.close().await;
        let Home::Folder(folder) = self.home.clone() else {
            panic!("not a store in a file");
        };
        drop(self);
        let store = open(Location::Folder(PathBuf::from(folder.path())), 1_000_000);
        let home = Home::Folder(folder);
        Subject { store, home }
    }
}

/// A call of a worker outside, for tasks of the plain type.
pub fn outside(worker: &str, nonce: Option<&str>, max: usize) -> LeaseRequest {
    LeaseRequest {
        types: vec!["plain".to_owned()],
        max,
        holder: Holder::Outside {
            worker: worker.to_owned(),
            nonce: nonce.map(str::to_owned),
        },
        lease: HashMap::from([("plain".to_owned(), LONG)]),
        bounds: HashMap::new(),
    }
}

/// What a process without work says of its workers.
pub fn own_worker() -> Worker {
    Worker {
        name: "own".to_owned(),
        place: Place::Inside { capacity: 4 },
        types: ["plain".to_owned()].into(),
        running: 0,
        tasks: Vec::new(),
        since: Timestamp::from_ms(0),
        heard_at: Timestamp::from_ms(0),
    }
}

pub fn held(lease: &Lease) -> Held {
    Held {
        user: lease.task.user.clone(),
        task: lease.task.id.clone(),
        token: lease.token,
        lease: LONG,
    }
}

pub fn inline(json: &str) -> TaskResult {
    TaskResult::Inline(RawValue::from_string(json.to_owned()).unwrap())
}

#[track_caller]
pub fn recorded<T: std::fmt::Debug>(fenced: Fenced<T>) -> T {
    match fenced {
        Fenced::Recorded(value) => value,
        Fenced::Lost => panic!("the lease was lost"),
    }
}

#[track_caller]
pub fn lost<T: std::fmt::Debug>(fenced: Fenced<T>) {
    assert!(
        matches!(fenced, Fenced::Lost),
        "a stale token counted: {fenced:?}"
    );
}
