//! The port to durable state. Its verbs are the use cases, and each is one atomic step: the decision
//! and everything that follows from it happen together or not at all, judged by the store's clock.
//!
//! A step whose outcome is unknown ([`StoreError::Unavailable`]) may be repeated with the same
//! arguments: `admit` carries the new task's id as its nonce, the verbs of a lease carry its token.

pub mod audit;
pub mod embedded;
mod ended;
pub mod redis;
pub mod request_windows;
pub mod signals;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::fingerprint::{FieldHashes, Fingerprint, FingerprintRule};
use crate::domain::history::History;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::matching::Matching;
use crate::domain::principal::{Scopes, UserId};
use crate::domain::quota::{Quota, Spent};
use crate::domain::schedule::{Plan, Schedule, ScheduleName};
use crate::domain::stats::{Crew, Stats};
use crate::domain::submission::Submission;
use crate::domain::task::{FencingToken, Progress, State, Task, TaskError, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::domain::turns::Bounds;
use crate::domain::webhook::{OwnSecret, WebhookSecret};
use crate::domain::worker::Worker;
use signals::{Following, Signals, Watch};

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Decides whether a submission is new, a duplicate or refused, and records and enqueues it.
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError>;

    /// [`Store::admit`] for each of them, decided in their order, so that a later one may be a duplicate of an
    /// earlier one. A store takes many in one step; what one meets harms no other, unless their step fails.
    async fn admit_many(&self, admissions: Vec<Admission>) -> Vec<Result<Admitted, StoreError>> {
        let mut admitted = Vec::with_capacity(admissions.len());
        for admission in admissions {
            admitted.push(self.admit(admission).await);
        }
        admitted
    }

    /// What [`Store::admit`] would decide; changes nothing.
    async fn check(&self, admission: Admission) -> Result<Checked, StoreError>;

    /// Leases up to `max` tasks that are ready; none of types that are paused. Each counts as an attempt.
    ///
    /// Types take turns, and so do the users of each who have tasks that may run; of a user's tasks the most
    /// important and oldest goes first. Users at a bound are passed over, and tasks whose concurrency key is
    /// taken wait until its holder has ended.
    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>, StoreError>;

    /// The task of a lease that is still held. Changes nothing, and counts nothing.
    async fn held(&self, held: &Held) -> Result<Fenced<Task>, StoreError>;

    /// Renews a lease, and records progress.
    async fn extend(
        &self,
        held: Held,
        progress: Option<Progress>,
    ) -> Result<Fenced<Extension>, StoreError>;

    /// Renews a lease, and passes it on: from now on a worker outside holds it, as if it had leased the task itself.
    async fn hand_over(&self, held: Held, worker: &str) -> Result<Fenced<Extension>, StoreError>;

    /// Records a task's success. A repeat with the same token is recorded too, and changes nothing.
    async fn complete(&self, held: Held, result: TaskResult) -> Result<Fenced<Task>, StoreError>;

    /// Records a failed attempt: the task is retried after `retry_in`, or is over when that is `None`
    /// or the attempts are used up. For a cancelled attempt this confirms that it has stopped.
    async fn fail(
        &self,
        held: Held,
        error: TaskError,
        retry_in: Option<Duration>,
    ) -> Result<Fenced<Task>, StoreError>;

    /// Hands a lease back unfinished, as drain does: the attempt does not count.
    async fn release(&self, held: Held) -> Result<Fenced<()>, StoreError>;

    async fn cancel(&self, user: &UserId, id: &TaskId) -> Result<Cancelled, StoreError>;

    /// Ends the interest of this key in a task, for good. Submissions without a key count as one that cannot be
    /// withdrawn; when no interest is left, this is [`Store::cancel`].
    async fn withdraw(
        &self,
        user: &UserId,
        id: &TaskId,
        key: &IdempotencyKey,
    ) -> Result<Withdrawn, StoreError>;

    /// Runs a failed or cancelled task again with a new budget of attempts.
    async fn redrive(&self, user: &UserId, id: &TaskId) -> Result<Redriven, StoreError>;

    /// Redrives failed tasks in bulk, oldest first; those that another task blocks are passed over. One step
    /// looks at a bounded number of them, and says from where to go on.
    async fn redrive_many(
        &self,
        user: &UserId,
        filter: RedriveFilter,
    ) -> Result<RedrivenMany, StoreError>;

    /// Forgets an ended task; its content may run anew, its keys answer as forgotten.
    async fn forget(&self, user: &UserId, id: &TaskId) -> Result<Forgotten, StoreError>;

    /// Does what time has made due, in bounded steps: queues scheduled tasks and retries, returns
    /// expired leases, expires results, tasks, keys and files.
    async fn rescue(&self) -> Result<Rescued, StoreError>;

    async fn get(&self, user: &UserId, id: &TaskId) -> Result<Found<Task>, StoreError>;

    /// Newest first.
    async fn list(&self, user: &UserId, filter: ListFilter) -> Result<Page, StoreError>;

    /// The newest suppressed duplicates of a task, newest first.
    async fn ledger(
        &self,
        user: &UserId,
        id: &TaskId,
    ) -> Result<Found<Vec<LedgerEntry>>, StoreError>;

    /// What is counted for one user, or for all.
    async fn stats(&self, user: Option<&UserId>) -> Result<Stats, StoreError>;

    /// What is counted for one user in a period, as far as it is kept: see [`crate::domain::history::Span`].
    async fn history(
        &self,
        user: &UserId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<History, StoreError>;

    /// Says what the workers of this process do; gives what those of all replicas do, as of a second ago.
    async fn muster(&self, own: Worker) -> Result<Crew, StoreError> {
        Ok(Crew::of(&own))
    }

    /// As [`Store::muster`], one by one, and the workers outside by the leases that they hold.
    async fn workers(&self, own: Worker) -> Result<Vec<Worker>, StoreError>;

    /// Leases no tasks of this type any more: at once here, and within a second by all replicas. Attempts that
    /// run go on. Pausing twice is pausing once.
    async fn pause(&self, task_type: &str) -> Result<(), StoreError>;

    async fn resume(&self, task_type: &str) -> Result<(), StoreError>;

    /// The types that are paused.
    async fn paused(&self) -> Result<BTreeSet<String>, StoreError>;

    /// The value that all replicas of this store use under that name: the first one that was proposed.
    async fn agree(&self, _name: &str, proposed: &str) -> Result<String, StoreError> {
        Ok(proposed.to_owned())
    }

    /// Keeps a schedule, in place of an earlier one of this name. As long as its timing stays as it was, so does its
    /// next firing.
    async fn put_schedule(&self, schedule: NewSchedule) -> Result<PutSchedule, StoreError>;

    async fn schedule(
        &self,
        user: &UserId,
        name: &ScheduleName,
    ) -> Result<Option<Schedule>, StoreError>;

    /// The user's, by name; without those whose records cannot be read.
    async fn schedules(&self, user: &UserId) -> Result<Vec<Schedule>, StoreError>;

    /// Whether there was a schedule to delete.
    async fn delete_schedule(&self, user: &UserId, name: &ScheduleName)
    -> Result<bool, StoreError>;

    /// Schedules of these types that are due, soonest first; up to `max` of them, or in some stores of each part. It
    /// may be asked as often as one likes: it costs next to nothing where nothing is due. One whose record cannot be
    /// read is put off, so that it keeps nobody waiting.
    async fn due_schedules(
        &self,
        types: Vec<String>,
        max: usize,
    ) -> Result<DueSchedules, StoreError>;

    /// Records a firing, and where the schedule goes on. Changes nothing when another replica was there before, or
    /// when the user has changed the schedule since it was looked at. Returns whether the schedule stands as said.
    ///
    /// Less durable than what is acknowledged: a firing whose record is lost is submitted once more under its key.
    async fn record_firing(&self, firing: Firing) -> Result<bool, StoreError>;

    /// Takes one of the `max` requests that a user may send in a [`Quota::WINDOW`], over all replicas. Nothing is
    /// promised: a store that comes back without its last moments begins the window anew.
    async fn spend_request(&self, user: &UserId, max: u32) -> Result<Spent, StoreError>;

    /// Counts the time from a whole request to its answer.
    fn record_submit_latency(&self, user: &UserId, took: Duration);

    /// The stored copy of a file that this user has uploaded.
    async fn file(&self, user: &UserId, sha256: &Sha256Digest) -> Result<Option<File>, StoreError>;

    /// Keeps an uploaded file that no task names yet, or keeps it for longer. Gives what is now on record: an
    /// older copy, when there was one; nothing, when the file comes without a copy and there is none.
    async fn keep_file(&self, user: &UserId, file: File) -> Result<Option<File>, StoreError>;

    /// Files of a user that no unfinished or failed task reads any more, and that were kept for nobody since
    /// `before`: a bounded part of them, and from where to go on.
    async fn unreferenced(
        &self,
        user: &UserId,
        before: Timestamp,
        after: Option<FileCursor>,
    ) -> Result<UnreferencedFiles, StoreError>;

    /// Takes this copy off the user's record, if it is still unreferenced in the same way. Whether no record
    /// names it now: a repeat says so again.
    async fn forget_file(
        &self,
        user: &UserId,
        name: &BlobName,
        before: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Of these copies, those that no record names: their bytes may be deleted.
    async fn unowned(&self, names: Vec<BlobName>) -> Result<Vec<BlobName>, StoreError>;

    /// What this user's webhooks are signed with, if the user has set it.
    async fn webhook_secret(&self, user: &UserId) -> Result<Option<OwnSecret>, StoreError>;

    /// Sets it; the one before stays valid for `overlap`. Setting the same once more changes nothing.
    async fn set_webhook_secret(
        &self,
        user: &UserId,
        secret: &WebhookSecret,
        overlap: Duration,
    ) -> Result<OwnSecret, StoreError>;

    async fn create_api_key(&self, key: ApiKey) -> Result<(), StoreError>;
    /// Records a key unless there is another one. Returns whether it is on record.
    async fn create_first_api_key(&self, key: ApiKey) -> Result<bool, StoreError>;
    async fn api_key(&self, id: &str) -> Result<Option<ApiKey>, StoreError>;
    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError>;
    /// Whether there was a key to revoke.
    async fn revoke_api_key(&self, id: &str) -> Result<bool, StoreError>;

    /// Wakes when a task changes. Register before looking, and poll anyway.
    fn watch(&self, id: &TaskId) -> Watch {
        self.signals().watch(id)
    }

    /// Tells which tasks of a user change. Register before looking, and look at all of them now and then.
    fn follow(&self, user: &UserId) -> Following {
        self.signals().follow(user)
    }

    fn signals(&self) -> &Signals;

    /// Whether the store can take a step now.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What an acknowledgement means here.
    fn durability(&self) -> Durability;

    /// What the store was seen, or is said, to hold to.
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            eviction_policy: Guarantees::NOEVICTION.to_owned(),
            are_assumed: false,
        }
    }

    /// Ends all steps under way and lets go of the store.
    async fn close(&self);
}

/// A submission on its way in.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The id of the task, if there will be one: also the nonce of this step.
    pub task_id: TaskId,
    pub user: UserId,
    pub key: Option<IdempotencyKey>,
    pub submission: Submission,
    pub rule: FingerprintRule,
    pub fingerprint: Fingerprint,
    /// The same content under those older versions of its type that answer for it, the newest first.
    pub older: Vec<Fingerprint>,
    /// What it has in common with those that it is in conflict with, if its mode looks for any.
    pub matching: Option<Matching>,
    pub request_id: Arc<str>,
    /// Bytes of files that the client did not have to send, or that need not be stored again, if this is a duplicate.
    pub bytes_not_sent: u64,
    /// Tasks of the user that may be unfinished, this one included, without those of the service itself.
    pub unfinished_max: Option<u64>,
}

impl Admission {
    pub fn new(
        user: UserId,
        key: Option<IdempotencyKey>,
        submission: Submission,
        request_id: Arc<str>,
    ) -> Self {
        let rule = submission.task_type.fingerprint_rule();
        let fingerprint = submission.fingerprint(&user, &rule);
        let under = |version| {
            let rule = FingerprintRule {
                version,
                ..rule.clone()
            };
            submission.fingerprint(&user, &rule)
        };
        let older = submission.task_type.older_versions().map(under).collect();
        let matching = submission.matching(&user, &fingerprint);
        Admission {
            task_id: TaskId::random(&user),
            matching,
            user,
            key,
            submission,
            rule,
            fingerprint,
            older,
            request_id,
            bytes_not_sent: 0,
            unfinished_max: None,
        }
    }

    /// If it is new, the user must have room for it.
    pub fn within(mut self, quota: Quota) -> Self {
        self.unfinished_max = quota.unfinished_tasks;
        self
    }

    /// Whether this is the submission that a key was recorded with: compared under the recorded rule.
    pub fn repeats(&self, fingerprint: &Fingerprint, rule: &FingerprintRule) -> bool {
        if *rule == self.rule {
            *fingerprint == self.fingerprint
        } else {
            *fingerprint == self.submission.fingerprint(&self.user, rule)
        }
    }

    /// What a key remembers of its submission. Made only when asked for: most duplicates need none of it.
    pub fn fields(&self) -> FieldHashes {
        self.submission.field_hashes(&self.user, &self.rule)
    }

    /// The names of the fields that are not as recorded.
    pub fn differing(&self, fields: &FieldHashes, rule: &FingerprintRule) -> Vec<String> {
        fields.differing(&self.submission.field_hashes(&self.user, rule))
    }
}

/// What became of a submission.
#[derive(Clone, Debug)]
pub enum Admitted {
    New(AdmissionAnswer),
    Duplicate {
        answer: AdmissionAnswer,
        matched_by: MatchedBy,
    },
    /// The key names another submission; the fields that differ.
    KeyReused {
        differs: Vec<String>,
    },
    /// The key names a task that was forgotten.
    KeyForgotten,
    /// The submission asked to be refused if it is a duplicate of this task.
    Rejected(Box<Task>),
    /// The user never uploaded this file.
    FileUnknown(Sha256Digest),
    QueueFull,
    /// The user has as many unfinished tasks as they may have: this many.
    QuotaExceeded {
        unfinished_max: u64,
    },
}

#[derive(Clone, Debug)]
pub struct AdmissionAnswer {
    pub task: Box<Task>,
    /// Until when the submission's key is kept; none while the task is unfinished or without a key.
    pub key_expires_at: Option<Timestamp>,
    /// JSON pointers to members of a duplicate that could not be applied to the existing task.
    pub ignored: Vec<&'static str>,
    /// Uploaded copies that were not taken, since an older one is on record.
    pub disowned: Vec<BlobName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchedBy {
    IdempotencyKey,
    Fingerprint,
    /// What `dedup.by` points at; the rest of the content may be another one.
    DedupBy,
}

#[derive(Clone, Debug)]
pub enum Checked {
    New,
    Duplicate {
        task: Box<Task>,
        matched_by: MatchedBy,
        expires_at: Option<Timestamp>,
    },
    KeyReused {
        differs: Vec<String>,
    },
    KeyForgotten,
    FileUnknown(Sha256Digest),
}

#[derive(Clone, Debug)]
pub struct LeaseRequest {
    pub types: Vec<String>,
    pub max: usize,
    pub holder: Holder,
    /// How long each lease lasts without renewal, by type.
    pub lease: HashMap<String, Duration>,
    /// What bounds attempts beyond `max`, by type.
    pub bounds: HashMap<String, Bounds>,
}

/// Who is to hold leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Workers of this process, which end with it.
    Inside,
    /// A worker elsewhere, which outlives this process: its leases are as durable as tasks are.
    Outside {
        worker: String,
        /// Of this call. Within [`LeaseRequest::NONCE_KEPT`] of the leases that it took, a repeat gives those of
        /// them that are still held, and no others.
        nonce: Option<String>,
    },
}

impl LeaseRequest {
    /// For types that `lease` does not name.
    pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);

    /// How long a call can be repeated under its nonce.
    pub const NONCE_KEPT: Duration = Duration::from_secs(60);

    pub fn lease_of(&self, task_type: &str) -> Duration {
        let lease = self.lease.get(task_type).copied();
        lease.unwrap_or(Self::LEASE_DEFAULT)
    }

    pub fn bounds_of(&self, task_type: &str) -> Bounds {
        self.bounds.get(task_type).copied().unwrap_or_default()
    }
}

/// The right to run one attempt.
#[derive(Clone, Debug)]
pub struct Lease {
    pub task: Task,
    pub token: FencingToken,
    pub expires_at: Timestamp,
    /// The key that the task was first submitted with.
    pub idempotency_key: Option<String>,
}

/// A lease as its holder names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub user: UserId,
    pub task: TaskId,
    pub token: FencingToken,
    /// How long the lease lasts from its next renewal.
    pub lease: Duration,
}

/// The answer to the holder of a lease: stale tokens change nothing.
#[derive(Clone, Debug)]
pub enum Fenced<T> {
    Recorded(T),
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub expires_at: Timestamp,
    /// The attempt should stop: its result will be refused.
    pub cancel_requested: bool,
}

/// What a runner gave, kept in the record or, when large, in blob storage.
#[derive(Clone, Debug)]
pub enum TaskResult {
    Inline(Box<RawValue>),
    Blob { name: BlobName, size: u64 },
}

#[derive(Clone, Debug)]
pub enum Cancelled {
    /// Cancelled now; `stopping` while its attempt has not confirmed yet.
    Done {
        task: Box<Task>,
        stopping: bool,
    },
    /// It had ended before.
    Ended(Box<Task>),
    Unknown(Missing),
}

#[derive(Clone, Debug)]
pub enum Withdrawn {
    /// Nobody wants it any more.
    Cancelled(Cancelled),
    /// Others do.
    Wanted(Box<Task>),
    /// The key does not name this task.
    KeyUnknown,
}

#[derive(Clone, Debug)]
pub enum Redriven {
    /// Queued again, or unfinished already.
    Done(Box<Task>),
    /// Another task answers for its fingerprint.
    Blocked(TaskId),
    /// Only failed and cancelled tasks run again.
    Succeeded(Box<Task>),
    Unknown(Missing),
}

#[derive(Clone, Debug, Default)]
pub struct RedriveFilter {
    pub task_type: Option<String>,
    /// Name, and value unless any will do.
    pub tag: Option<(String, Option<String>)>,
    /// Tasks that ended before this.
    pub before: Option<Timestamp>,
    pub limit: usize,
    /// From the step before.
    pub after: Option<Cursor>,
}

/// What one step of a bulk redrive did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedrivenMany {
    pub redriven: u64,
    /// None when there are no more to look at.
    pub next: Option<Cursor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Its content may run anew. The stored copy of its result, if there was one, has no owner now.
    Done {
        disowned: Option<BlobName>,
    },
    Unfinished,
    Unknown(Missing),
}

/// Why a task is not there. A foreign task is missing exactly as one that never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Unknown,
    /// There was one: it was forgotten, or its retention is over.
    Forgotten,
}

#[derive(Clone, Debug)]
pub enum Found<T> {
    Here(T),
    Missing(Missing),
}

/// What a rescue did, and when there will be more.
#[derive(Clone, Debug, Default)]
pub struct Rescued {
    pub queued: u64,
    /// Users who had to wait and have their turn again.
    pub resumed: u64,
    pub leases_expired: u64,
    pub expired: u64,
    /// Copies that no record names any more: their bytes may be deleted.
    pub disowned: Vec<BlobName>,
    /// The next time at which something will be due.
    pub next_due_at: Option<Timestamp>,
    /// Whether more is due already.
    pub more: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub state: Option<State>,
    pub task_type: Option<String>,
    /// Name, and value unless any will do.
    pub tag: Option<(String, Option<String>)>,
    pub key: Option<IdempotencyKey>,
    pub fingerprint: Option<Fingerprint>,
    pub limit: usize,
    /// From the page before.
    pub cursor: Option<Cursor>,
}

/// A place in a list, opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub u64);

#[derive(Clone, Debug)]
pub struct Page {
    pub tasks: Vec<Task>,
    /// None on the last page. A page may be short, or empty, and still have a next one.
    pub next: Option<Cursor>,
}

/// A schedule as its user wants it.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    pub user: UserId,
    pub name: ScheduleName,
    pub plan: Plan,
    /// A number that no other version has had; at most 2^53.
    pub revision: u64,
    /// The next firing by its timing, from `found_at` on.
    pub next_fire_at: Option<Timestamp>,
    pub found_at: Timestamp,
}

impl NewSchedule {
    /// How far the store's clock may be from `found_at`.
    pub const APART_MAX: Duration = Duration::from_secs(2);
}

#[derive(Clone, Debug)]
pub enum PutSchedule {
    Created(Schedule),
    Replaced(Schedule),
    /// The user has [`Schedule::PER_USER_MAX`] others.
    Full,
    /// The store's clock says something else than `found_at`: that counts.
    AnotherTime(Timestamp),
}

#[derive(Clone, Debug)]
pub struct DueSchedules {
    pub schedules: Vec<DueSchedule>,
    /// The time until there may be another one.
    pub next_due_in: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct DueSchedule {
    pub schedule: Schedule,
    /// The store's clock when it was looked at.
    pub now: Timestamp,
}

/// What came of a schedule that was due.
#[derive(Clone, Debug)]
pub struct Firing {
    pub user: UserId,
    pub name: ScheduleName,
    /// As it was when it was looked at: of several replicas one goes on.
    pub revision: u64,
    /// As it is from now on; one that it never had.
    pub next_revision: u64,
    /// None when firings were left out or put off.
    pub fired: Option<Fired>,
    pub next_fire_at: Option<Timestamp>,
    /// Look at it again no sooner than so long from now.
    pub put_off: Duration,
}

/// The newest firing that was due.
#[derive(Clone, Debug)]
pub struct Fired {
    pub at: Timestamp,
    /// Its task, as far as it is known; or why it could not be submitted.
    pub outcome: Result<Option<TaskId>, String>,
}

/// A place in a list of files, in the store's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCursor(pub String);

#[derive(Clone, Debug)]
pub struct UnreferencedFiles {
    /// May hold a file twice.
    pub files: Vec<File>,
    /// None at the end. A part may be empty and still have a next one.
    pub next: Option<FileCursor>,
}

/// One suppressed duplicate.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LedgerEntry {
    pub at: Timestamp,
    pub matched_by: MatchedBy,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub request_id: String,
    /// File bytes that were not sent or not stored again.
    pub bytes_saved: u64,
    /// How long the attempt took that need not run again; 0 while it is unfinished.
    pub seconds_saved: f64,
}

impl LedgerEntry {
    /// The newest entries of a task that are kept; older ones live on in its count.
    pub const KEPT_MAX: usize = 100;

    /// What counters add up, so that they agree with the ledger to the millisecond.
    pub fn saved_ms(&self) -> u64 {
        (self.seconds_saved * 1000.0).round() as u64
    }
}

/// An API key as it is kept: the secret itself is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: String,
    /// SHA-256 of the secret.
    pub secret_hash: Sha256Digest,
    pub user: UserId,
    pub scopes: Scopes,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// What an acknowledgement survives, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing beyond the process or server that holds it.
    Memory,
    /// Power loss of one machine.
    Fsync,
    /// The end of one machine, with its disk.
    ReplicatedFsync,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Fsync => "fsync",
            Durability::ReplicatedFsync => "replicated-fsync",
        }
    }
}

/// What acknowledgements rest on, beside durability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// What the store does when it is full, in Redis' words; [`Guarantees::NOEVICTION`] is the only one under
    /// which nothing is lost.
    pub eviction_policy: String,
    /// Whether the store shows nothing of it, and the operator vouches for it, and for the durability.
    pub are_assumed: bool,
}

impl Guarantees {
    pub const NOEVICTION: &str = "noeviction";
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The step was not executed, or its outcome is unknown: repeat it to learn the truth.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The step was not executed: there is no room.
    #[error("the store is full")]
    Full,
    /// The step was not executed: the store has come back emptied or older than what it acknowledged.
    #[error("the store has lost what it acknowledged")]
    StateLost,
}
