//! The store of many replicas: Redis, alone, behind sentinels, or as a cluster.
//!
//! Users are spread over partitions by the hash of their name. All keys of a partition share one hash
//! tag, and each verb is one script that touches one partition only (`lua/`): it checks everything, then
//! writes, by Redis's own clock. What a script cannot be told before it has looked — the task that a key
//! names — begins with the partition's root, which is always `KEYS[1]`, so that it lies in the same slot.
//!
//! A script's outcome is classified in one place (`outcome`). What was not executed is tried again for
//! two seconds; what is unknown is tried again only under a nonce that makes the repeat answer as the
//! first did. What is said about duplicates is written behind (`suppressed`).
//!
//! Replicas tell each other what they did (`news`), and remember where there was nothing to do
//! (`horizon`), so that idle ones cost Redis next to nothing.
//!
//! Why counts in two steps? A step that counts adds to one hash of the partition; every visit of the
//! rescue, and whoever reads statistics, folds it into the buckets of all lengths. That is one command
//! on the hot path instead of eight.

mod address;
mod admit;
mod agenda;
mod agreed;
mod agreement;
mod api_keys;
mod audit;
mod chores;
mod completion;
mod confirmations;
mod diagnosis;
mod ends;
mod files;
mod guard;
mod history;
mod horizon;
mod keys;
mod leases;
mod lifecycle;
mod lines;
mod link;
mod list;
mod marks;
mod memory;
mod muster;
mod news;
mod outcome;
mod outside;
mod packed;
mod pauses;
mod rates;
mod record;
mod reply;
mod requests;
mod rescue;
mod schedules;
mod scripts;
#[cfg(feature = "seeded-faults")]
mod seeded_faults;
mod server;
mod silence;
#[cfg(test)]
mod simulation;
mod stats;
mod step;
mod suppressed;
mod trust;
mod unreferenced;
mod untold;
mod webhook_secrets;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::from_redis_value;
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::admit::{Ask, Question, Records, Way};
use self::agenda::Agenda;
use self::completion::Completion;
use self::guard::Guard;
use self::horizon::{Horizon, Share};
use self::keys::{Keys, PARTITIONS, Partition};
use self::leases::Nonce;
use self::lines::Lines;
use self::link::{Commands, RESPONSE_WAIT_MAX};
use self::marks::Marks;
use self::memory::Memory;
use self::news::Listener;
use self::pauses::Pauses;
use self::rates::{Permits, Rates};
use self::requests::{Exhausted, Spending};
use self::step::{Step, Steps, unavailable};
use self::suppressed::Notes;
use super::signals::Signals;
use super::{
    Admission, Admitted, ApiKey, Cancelled, Checked, Cursor, DueSchedules, Durability, Extension,
    Fenced, FileCursor, Firing, Forgotten, Found, Guarantees, Held, Lease, LeaseRequest,
    LedgerEntry, ListFilter, Missing, NewSchedule, Page, PutSchedule, RedriveFilter, Redriven,
    RedrivenMany, Rescued, Store, StoreError, TaskResult, UnreferencedFiles, Withdrawn,
};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::history::History;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::quota::Spent;
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::domain::stats::{Crew, Stats};
use crate::domain::task::{Progress, State, Task, TaskError, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{OwnSecret, WebhookSecret};
use crate::domain::worker::Worker;
use crate::failpoints::FailPoint;

pub use self::address::Address;
pub use self::audit::Auditor;
pub use self::diagnosis::{Diagnosis, diagnose};
pub use self::guard::Assumed;
pub use self::trust::Trust;

/// The layout of keys and records that this code reads and writes. Any other one is refused.
const SCHEMA: u32 = 2;

/// Time enough to notice that the store was emptied, and to restore it.
const ORPHANS_KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);
/// A ping says what the last one did if that was so short a time ago.
const PING_HOLDS_FOR: Duration = Duration::from_millis(500);
/// A call for leases asks partitions so often at most. What is left over is found by the next call.
const LEASE_ROUNDS_MAX: usize = 32;
/// Redis refuses a write at once, if it does; what takes longer has no answer.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct Options {
    pub address: Address,
    /// Before every key.
    pub prefix: String,
    pub assumed: Assumed,
    /// What acknowledgements must survive at least.
    pub durability_min: Durability,
    /// Tasks that may be unfinished, over all replicas. Exact within a partition, and a second late
    /// between them.
    pub queue_tasks_max: u64,
    /// Where this replica remembers what it was told, for its next start.
    pub folder: Option<PathBuf>,
    /// A store that is younger names no copy as unowned: it may have been emptied, and be restored.
    pub orphans_kept_for: Duration,
}

impl Options {
    /// Under the usual prefix, without limits, and remembering nothing.
    pub fn at(address: Address) -> Self {
        Options {
            address,
            prefix: "justonce".to_owned(),
            assumed: Assumed::default(),
            durability_min: Durability::Memory,
            queue_tasks_max: u64::MAX,
            folder: None,
            orphans_kept_for: ORPHANS_KEPT_FOR,
        }
    }

    /// Connections of their own for what may wait, where anything does.
    async fn waiting(&self, link: &Arc<dyn Commands>) -> Result<Arc<dyn Commands>, StartError> {
        match self.durability_min {
            Durability::Memory => Ok(link.clone()),
            Durability::Fsync | Durability::ReplicatedFsync => Ok(self.address.connect().await?),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot connect to Redis: {0}")]
    Connect(#[from] redis::RedisError),
    #[error("cannot use Redis: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Settings(String),
    #[error("what this replica remembers of Redis cannot be read: {0}")]
    Memory(#[from] std::io::Error),
    #[error(
        "Redis was written by a newer release (schema {0}, this release knows {SCHEMA}): start that release"
    )]
    Newer(u32),
    #[error(
        "Redis was written by an older release in another layout (schema {0}, this release knows {SCHEMA}): use an \
         empty Redis, or another JUSTONCE_REDIS_PREFIX"
    )]
    Older(u32),
}

/// One for each process. Cheap to clone.
#[derive(Clone)]
pub struct RedisStore(Arc<Parts>);

struct Parts {
    steps: Steps,
    keys: Keys,
    horizon: Arc<Horizon>,
    agenda: Arc<Agenda>,
    signals: Signals,
    notes: Notes,
    memory: Memory,
    admissions: Lines<Ask>,
    completions: Lines<Completion>,
    requests: Lines<Spending>,
    guard: Guard,
    pauses: Arc<Pauses>,
    rates: Rates,
    queue_tasks_max: u64,
    exhausted: Exhausted,
    orphans_kept_for: Duration,
    pinged_at: Mutex<Option<Instant>>,
    _stop: DropGuard,
}

impl RedisStore {
    pub async fn open(options: Options) -> Result<Self, StartError> {
        let link = options.address.connect().await?;
        let marks = Arc::new(Marks::open(options.folder.as_deref())?);
        let waiting = options.waiting(&link).await?;
        let steps = Steps::new(link.clone(), waiting, marks);
        let guard = Guard::new(options.assumed, options.durability_min);
        guard.look(&steps).await?;
        if let Some(fault) = guard.fault() {
            return Err(StartError::Settings(fault));
        }
        let keys = begin(&steps, &options.prefix).await?;
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
            guard,
            pauses: Arc::default(),
            rates: Rates::default(),
            queue_tasks_max: options.queue_tasks_max,
            exhausted: Exhausted::default(),
            orphans_kept_for: options.orphans_kept_for,
            pinged_at: Mutex::default(),
            _stop: stop.clone().drop_guard(),
        });
        match parts.look().await {
            Ok(()) | Err(StoreError::StateLost) => {}
            Err(error) => return Err(error.into()),
        }
        parts.listen(link, stop);
        chores::start(&parts);
        Ok(RedisStore(parts))
    }
}

/// Goes on where this replica, or all of them, have begun. A replica that remembers more than Redis does
/// starts too, and serves nothing.
async fn begin(steps: &Steps, prefix: &str) -> Result<Keys, StartError> {
    let Some(agreement) = agreement::agree(steps, prefix).await? else {
        let known = steps.marks().known();
        steps.marks().lose(&known);
        let partitions = u16::try_from(known.partitions()).unwrap_or(PARTITIONS);
        return Ok(Keys::new(prefix, partitions));
    };
    let keys = Keys::new(prefix, agreement.partitions);
    match agreement.take(steps, &keys).await {
        Ok(()) | Err(StoreError::StateLost) => Ok(keys),
        Err(error) => Err(error.into()),
    }
}

/// Takes what replicas have reported as lost for granted, so that they serve again. Returns how many have.
pub async fn accept_loss(address: &Address, prefix: &str) -> Result<u64, StartError> {
    Ok(agreement::accept_loss(address.connect().await?, prefix).await?)
}

impl Parts {
    fn root(&self, user: &UserId) -> &str {
        self.keys.root(self.keys.of_user(user))
    }

    fn listen(&self, link: Arc<dyn Commands>, stop: CancellationToken) {
        let listener = Listener {
            link,
            channel: self.keys.news(),
            horizon: self.horizon.clone(),
            agenda: self.agenda.clone(),
            signals: self.signals.clone(),
            pauses: self.pauses.clone(),
            stop,
        };
        tokio::spawn(listener.run());
    }

    /// Before a read, which shows what was said until now. A Redis that only takes no writes says so soon, and
    /// is read without.
    async fn write_notes_to_read(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        match self.write_notes().await {
            Err(StoreError::Unavailable(_)) if began.elapsed() < REFUSED_WITHIN => Ok(()),
            written => written,
        }
    }

    async fn write_notes(&self) -> Result<(), StoreError> {
        self.notes.write(&self.steps, &self.keys).await
    }

    /// Looks at every partition; those that do not answer now are looked at later.
    async fn look(&self) -> Result<(), StoreError> {
        let all: Vec<Partition> = self.keys.partitions().collect();
        let at_a_time = match self.steps.link().is_one_server() {
            true => all.len(),
            false => 1,
        };
        let looks = all.chunks(at_a_time).map(|some| self.look_at(some));
        outcome_of_all(join_all(looks).await)
    }

    /// Whether there is work that no news has told of, how full the queue is, and whether everything is
    /// still there.
    async fn look_at(&self, partitions: &[Partition]) -> Result<(), StoreError> {
        let known = self.steps.marks().known();
        let told: Vec<u64> = partitions.iter().map(|&p| known.floor(p)).collect();
        let names = partitions.iter().flat_map(|&partition| {
            let root = self.keys.root(partition);
            [
                keys::seq(root),
                keys::open(root),
                keys::mark(root, known.name()),
                keys::schedules_version(root),
            ]
        });
        let step = Step::command("MGET").arg(names.collect::<Vec<_>>());
        let texts: Vec<Option<String>> =
            from_redis_value(self.steps.value(step).await?).map_err(|_| reply::senseless())?;
        for ((&partition, told), texts) in partitions.iter().zip(told).zip(texts.chunks(4)) {
            let [seq, open, mark, schedules] = texts else {
                return Err(reply::senseless());
            };
            let [seq, open, mark] = [number(seq)?, number(open)?, number(mark)?];
            if mark < told {
                self.steps.marks().lose(&known);
                return Err(StoreError::StateLost);
            }
            self.horizon.set_open(partition, open);
            if self.horizon.queued_up_to(partition, seq) {
                self.signals.work_is_ready();
            }
            let version = schedules::version(schedules.as_deref());
            if self.agenda.stands_at(partition, version) {
                self.signals.schedules_have_changed();
            }
        }
        Ok(())
    }

    async fn look_at_pauses(&self) -> Result<(), StoreError> {
        let paused = pauses::all(&self.steps, &self.keys).await?;
        if self.pauses.know(paused) {
            self.signals.work_is_ready();
        }
        Ok(())
    }

    async fn remember(&self) {
        let marks = self.steps.shared_marks();
        let remembered = tokio::task::spawn_blocking(move || marks.remember()).await;
        if let Ok(Err(error)) = remembered {
            tracing::warn!(%error, "what this replica knows of Redis was not written down");
        }
    }

    /// Not while nothing may be promised.
    fn answer_from_memory(&self, admission: &Admission, partition: Partition) -> Option<Admitted> {
        // A callback may be one that the task does not have yet.
        if admission.submission.callback.is_some() {
            return None;
        }
        let may_promise = !self.steps.marks().is_lost() && !self.guard.has_fault();
        let answer = || admit::from_memory(admission, partition, &self.memory, &self.notes);
        may_promise.then(answer).flatten()
    }

    /// This replica has made tasks ready.
    fn tell_work(&self, partition: Partition) {
        self.horizon.work(partition);
        self.signals.work_is_ready();
    }

    /// This replica has set a deadline.
    fn tell_due(&self, partition: Partition, at: Timestamp) {
        self.horizon.due(partition, at);
        self.signals.due_is_sooner();
    }

    /// What has become of a task through a step of this replica.
    fn tell(&self, task: &Task) {
        let partition = self.keys.of_user(&task.user);
        match task.state {
            State::Queued => self.tell_work(partition),
            State::Scheduled | State::Retrying => {
                let at = task.next_attempt_at.or(task.scheduled_at);
                self.tell_due(partition, at.unwrap_or(Timestamp::from_ms(i64::MIN)));
            }
            State::Running | State::Succeeded | State::Failed | State::Cancelled => {}
        }
        self.signals.task_changed(&task.id);
    }

    /// Admits those of `admissions` that are at `places`, all of this partition.
    async fn admit_in(
        &self,
        partition: Partition,
        places: Vec<usize>,
        admissions: &[Admission],
    ) -> Vec<(usize, Result<Admitted, StoreError>)> {
        let (root, room) = (self.keys.root(partition), self.room(partition));
        let question = |&at: &usize| Question::new(&admissions[at], root, room);
        let questions = places.iter().map(question).collect();
        let lines = (&self.steps, &self.admissions);
        let answers = admit::admit_many(lines, questions, partition, self.records()).await;
        for admitted in answers.iter().flatten() {
            self.tell_admitted(partition, admitted);
        }
        places.into_iter().zip(answers).collect()
    }

    fn tell_admitted(&self, partition: Partition, admitted: &Admitted) {
        match admitted {
            Admitted::New(answer) => {
                FailPoint::BeforeWake.reached();
                self.tell(&answer.task);
            }
            // It may have been scheduled, and is ready now.
            Admitted::Duplicate { answer, .. } if answer.task.state == State::Queued => {
                self.tell_work(partition);
            }
            _ => {}
        }
    }

    async fn lease_within_rates(
        &self,
        mut request: LeaseRequest,
        nonce: Nonce,
    ) -> Result<Vec<Lease>, StoreError> {
        let Parts {
            steps,
            keys,
            rates,
            signals,
            ..
        } = self;
        let mut permits = Permits::take(steps, keys, rates, signals, &mut request).await?;
        let leases = self.lease_in_turns(request, nonce, &mut permits).await;
        if let Err(error) = permits.give_back(steps, keys).await {
            tracing::debug!(%error, "permits to start attempts were not given back");
        }
        leases
    }

    /// From each partition as much as users wait there.
    async fn lease_in_turns(
        &self,
        mut request: LeaseRequest,
        nonce: Nonce,
        permits: &mut Permits,
    ) -> Result<Vec<Lease>, StoreError> {
        let max = request.max;
        let mut leases: Vec<Lease> = Vec::new();
        let (mut failure, mut passed_by) = (None, HashSet::new());
        let mut known: HashMap<Partition, usize> = HashMap::new();
        for _ in 0..LEASE_ROUNDS_MAX {
            let before = leases.len();
            let left = max - before;
            let mut shares = self.horizon.shares(&request.types, left, &passed_by);
            if left == 0 || request.types.is_empty() || shares.is_empty() {
                break;
            }
            // One after the other may use what permits there are.
            if !permits.is_empty() {
                shares.truncate(1);
            }
            let asked = shares.iter().map(|share| {
                let known = known.get(&share.partition).copied().unwrap_or(0);
                self.lease_share(share, &request, (&nonce, known), permits)
            });
            let answers = join_all(asked).await;
            for (share, taken) in shares.iter().zip(answers) {
                match taken {
                    Ok(taken) => {
                        *known.entry(share.partition).or_default() += taken.len();
                        leases.extend(taken);
                    }
                    // Other partitions may be elsewhere, and well.
                    Err(error) => {
                        failure = Some(error);
                        passed_by.insert(share.partition);
                    }
                }
            }
            permits.use_up(&leases[before..]);
            permits.keep_to(&mut request);
        }
        if let Some(failure) = failure.filter(|_| leases.is_empty()) {
            return Err(failure);
        }
        if !leases.is_empty() {
            self.signals.due_is_sooner();
        }
        Ok(leases)
    }

    async fn lease_share(
        &self,
        share: &Share,
        request: &LeaseRequest,
        nonce: (&Nonce, usize),
        permits: &Permits,
    ) -> Result<Vec<Lease>, StoreError> {
        let root = self.keys.root(share.partition);
        let room = |name: &str| permits.room(name, share.max);
        let taken = leases::lease(&self.steps, root, request, nonce, share.max, room).await?;
        let count = taken.leases.len();
        self.horizon
            .leased(&request.types, share, count, taken.left());
        for lease in &taken.leases {
            self.horizon.due(share.partition, lease.expires_at);
            self.signals.task_changed(&lease.task.id);
        }
        Ok(taken.leases)
    }

    fn records(&self) -> Records<'_> {
        Records {
            memory: &self.memory,
            notes: &self.notes,
        }
    }

    fn room(&self, partition: Partition) -> u64 {
        let elsewhere = self.horizon.open_elsewhere(partition);
        self.queue_tasks_max.saturating_sub(elsewhere)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        let parts = &*self.0;
        let partition = parts.keys.of_user(&admission.user);
        if let Some(answer) = parts.answer_from_memory(&admission, partition) {
            return Ok(answer);
        }
        let root = parts.keys.root(partition);
        let question = Question::new(&admission, root, parts.room(partition));
        let way = Way::Admit(&parts.steps, &parts.admissions, partition);
        let admitted = admit::admit(way, question, partition, parts.records()).await?;
        parts.tell_admitted(partition, &admitted);
        Ok(admitted)
    }

    /// One step for many of one partition, as large as steps of theirs may be.
    async fn admit_many(&self, admissions: Vec<Admission>) -> Vec<Result<Admitted, StoreError>> {
        let parts = &*self.0;
        let mut admitted: Vec<_> = admissions.iter().map(|_| None).collect();
        let mut open: HashMap<usize, (Partition, Vec<usize>)> = HashMap::new();
        for (at, admission) in admissions.iter().enumerate() {
            let partition = parts.keys.of_user(&admission.user);
            admitted[at] = parts.answer_from_memory(admission, partition).map(Ok);
            if admitted[at].is_none() {
                let (_, places) = open
                    .entry(partition.index())
                    .or_insert((partition, Vec::new()));
                places.push(at);
            }
        }
        let steps = open
            .into_values()
            .map(|(partition, places)| parts.admit_in(partition, places, &admissions));
        for (at, answer) in join_all(steps).await.into_iter().flatten() {
            admitted[at] = Some(answer);
        }
        admitted.into_iter().flatten().collect()
    }

    async fn check(&self, admission: Admission) -> Result<Checked, StoreError> {
        let parts = &*self.0;
        parts.write_notes_to_read().await?;
        let question = Question::new(&admission, parts.root(&admission.user), 0);
        admit::check(&parts.steps, question).await
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>, StoreError> {
        let parts = &*self.0;
        let nonce = Nonce::of(&request.holder);
        if let Some(leases) = leases::earlier(&parts.steps, &parts.keys, &request, &nonce).await? {
            return Ok(leases);
        }
        let request = LeaseRequest {
            types: parts.pauses.open(&request.types),
            ..request
        };
        if !parts.horizon.is_promising(&request.types) {
            return Ok(Vec::new());
        }
        parts.lease_within_rates(request, nonce).await
    }

    async fn held(&self, held: &Held) -> Result<Fenced<Task>, StoreError> {
        let parts = &*self.0;
        let root = parts.root(&held.user);
        lifecycle::held(&parts.steps, root, held).await
    }

    async fn hand_over(&self, held: Held, worker: &str) -> Result<Fenced<Extension>, StoreError> {
        let parts = &*self.0;
        leases::hand_over(&parts.steps, parts.root(&held.user), &held, worker).await
    }

    async fn extend(
        &self,
        held: Held,
        progress: Option<Progress>,
    ) -> Result<Fenced<Extension>, StoreError> {
        let parts = &*self.0;
        let root = parts.root(&held.user);
        let extended = leases::extend(&parts.steps, root, &held, progress.as_ref()).await?;
        if progress.is_some() {
            parts.signals.task_changed(&held.task);
        }
        Ok(extended)
    }

    async fn complete(&self, held: Held, result: TaskResult) -> Result<Fenced<Task>, StoreError> {
        let parts = &*self.0;
        let partition = parts.keys.of_user(&held.user);
        let place = (partition, parts.keys.root(partition));
        let id = held.task.clone();
        let until = Instant::now() + RESPONSE_WAIT_MAX;
        let completed = parts
            .completions
            .take(&parts.steps, place, Completion { held, result }, until)
            .await??;
        parts.signals.task_changed(&id);
        Ok(completed)
    }

    async fn fail(
        &self,
        held: Held,
        error: TaskError,
        retry_in: Option<Duration>,
    ) -> Result<Fenced<Task>, StoreError> {
        let parts = &*self.0;
        let root = parts.root(&held.user);
        let failed = leases::fail(&parts.steps, root, &held, &error, retry_in).await?;
        if let Fenced::Recorded(task) = &failed {
            parts.tell(task);
        }
        Ok(failed)
    }

    async fn release(&self, held: Held) -> Result<Fenced<()>, StoreError> {
        let parts = &*self.0;
        let partition = parts.keys.of_user(&held.user);
        let released = leases::release(&parts.steps, parts.keys.root(partition), &held).await?;
        parts.tell_work(partition);
        parts.signals.task_changed(&held.task);
        Ok(released)
    }

    async fn cancel(&self, user: &UserId, id: &TaskId) -> Result<Cancelled, StoreError> {
        let parts = &*self.0;
        let cancelled = lifecycle::cancel(&parts.steps, parts.root(user), user, id).await?;
        parts.signals.task_changed(id);
        Ok(cancelled)
    }

    async fn withdraw(
        &self,
        user: &UserId,
        id: &TaskId,
        key: &IdempotencyKey,
    ) -> Result<Withdrawn, StoreError> {
        let parts = &*self.0;
        let withdrawn = lifecycle::withdraw(&parts.steps, parts.root(user), user, id, key).await?;
        parts.signals.task_changed(id);
        Ok(withdrawn)
    }

    async fn redrive(&self, user: &UserId, id: &TaskId) -> Result<Redriven, StoreError> {
        let parts = &*self.0;
        let redriven = lifecycle::redrive(&parts.steps, parts.root(user), user, id).await?;
        if let Redriven::Done(task) = &redriven {
            parts.tell(task);
        }
        Ok(redriven)
    }

    /// Each task in a step of its own.
    async fn redrive_many(
        &self,
        user: &UserId,
        filter: RedriveFilter,
    ) -> Result<RedrivenMany, StoreError> {
        let parts = &*self.0;
        let root = parts.root(user);
        let letters = list::dead_letters(&parts.steps, &parts.keys, user, filter.after).await?;
        let is_last = letters.len() < list::DEAD_LETTERS_MAX;
        let mut many = RedrivenMany {
            redriven: 0,
            next: None,
        };
        for (id, seq) in letters {
            let found = lifecycle::get(&parts.steps, root, user, &id).await?;
            if matches!(&found, Found::Here(task) if list::is_asked_for(task, &filter))
                && let Redriven::Done(_) = self.redrive(user, &id).await?
            {
                many.redriven += 1;
            }
            many.next = Some(Cursor(seq));
            if many.redriven as usize >= filter.limit {
                return Ok(many);
            }
        }
        many.next = many.next.filter(|_| !is_last);
        Ok(many)
    }

    async fn forget(&self, user: &UserId, id: &TaskId) -> Result<Forgotten, StoreError> {
        let parts = &*self.0;
        let forgotten = lifecycle::forget(&parts.steps, parts.root(user), user, id).await?;
        parts.signals.task_changed(id);
        let forgets = Forgotten::Unknown(Missing::Forgotten);
        if matches!(forgotten, Forgotten::Done { .. }) || forgotten == forgets {
            // It may have been this call's first try. No replica answers from its memory of it any more.
            tokio::time::sleep(memory::HOLDS_FOR).await;
        }
        Ok(forgotten)
    }

    async fn rescue(&self) -> Result<Rescued, StoreError> {
        let parts = &*self.0;
        let rescued = rescue::rescue(&parts.steps, &parts.keys, &parts.horizon, now()).await?;
        if rescued.queued + rescued.resumed + rescued.leases_expired > 0 {
            parts.signals.work_is_ready();
        }
        Ok(rescued)
    }

    async fn get(&self, user: &UserId, id: &TaskId) -> Result<Found<Task>, StoreError> {
        let parts = &*self.0;
        parts.write_notes_to_read().await?;
        let root = parts.root(user);
        let found = lifecycle::get(&parts.steps, root, user, id).await?;
        if let Found::Here(task) = &found {
            ends::stand(&parts.steps, root, user, [task]).await?;
        }
        Ok(found)
    }

    async fn list(&self, user: &UserId, filter: ListFilter) -> Result<Page, StoreError> {
        let parts = &*self.0;
        parts.write_notes_to_read().await?;
        let page = list::list(&parts.steps, &parts.keys, user, &filter).await?;
        ends::stand(&parts.steps, parts.root(user), user, &page.tasks).await?;
        Ok(page)
    }

    async fn ledger(
        &self,
        user: &UserId,
        id: &TaskId,
    ) -> Result<Found<Vec<LedgerEntry>>, StoreError> {
        let parts = &*self.0;
        parts.write_notes_to_read().await?;
        let root = parts.root(user);
        if let Found::Missing(missing) = lifecycle::get(&parts.steps, root, user, id).await? {
            return Ok(Found::Missing(missing));
        }
        let step = Step::command("LRANGE")
            .arg(keys::ledger(root, id))
            .arg(0)
            .arg(-1);
        let entries: Vec<String> =
            from_redis_value(parts.steps.value(step).await?).map_err(|_| reply::senseless())?;
        let entries = entries.iter().map(|entry| record::from_json(entry));
        entries.collect::<Result<_, _>>().map(Found::Here)
    }

    async fn stats(&self, user: Option<&UserId>) -> Result<Stats, StoreError> {
        let parts = &*self.0;
        parts.write_notes_to_read().await?;
        stats::stats(&parts.steps, &parts.keys, user).await
    }

    async fn history(
        &self,
        user: &UserId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<History, StoreError> {
        let parts = &*self.0;
        parts.write_notes().await?;
        history::history(&parts.steps, &parts.keys, user, from, to).await
    }

    async fn muster(&self, own: Worker) -> Result<Crew, StoreError> {
        muster::muster(&self.0.steps, &self.0.keys, &own).await
    }

    async fn workers(&self, own: Worker) -> Result<Vec<Worker>, StoreError> {
        let Parts { steps, keys, .. } = &*self.0;
        let mut workers = muster::all(steps, keys, &own).await?;
        workers.extend(outside::workers(steps, keys).await?);
        Ok(workers)
    }

    async fn pause(&self, task_type: &str) -> Result<(), StoreError> {
        let parts = &*self.0;
        pauses::pause(&parts.steps, &parts.keys, task_type).await?;
        parts.look_at_pauses().await
    }

    async fn resume(&self, task_type: &str) -> Result<(), StoreError> {
        let parts = &*self.0;
        pauses::resume(&parts.steps, &parts.keys, task_type).await?;
        parts.look_at_pauses().await
    }

    async fn paused(&self) -> Result<BTreeSet<String>, StoreError> {
        pauses::all(&self.0.steps, &self.0.keys).await
    }

    async fn put_schedule(&self, schedule: NewSchedule) -> Result<PutSchedule, StoreError> {
        let parts = &*self.0;
        let partition = parts.keys.of_user(&schedule.user);
        let put = schedules::put(&parts.steps, parts.keys.root(partition), schedule).await?;
        parts.agenda.changed(partition);
        parts.signals.schedules_have_changed();
        Ok(put)
    }

    async fn schedule(
        &self,
        user: &UserId,
        name: &ScheduleName,
    ) -> Result<Option<Schedule>, StoreError> {
        let parts = &*self.0;
        schedules::find(&parts.steps, parts.root(user), user, name).await
    }

    async fn schedules(&self, user: &UserId) -> Result<Vec<Schedule>, StoreError> {
        let parts = &*self.0;
        schedules::all(&parts.steps, parts.root(user), user).await
    }

    async fn delete_schedule(
        &self,
        user: &UserId,
        name: &ScheduleName,
    ) -> Result<bool, StoreError> {
        let parts = &*self.0;
        schedules::delete(&parts.steps, parts.root(user), user, name).await
    }

    async fn due_schedules(
        &self,
        types: Vec<String>,
        max: usize,
    ) -> Result<DueSchedules, StoreError> {
        let Parts {
            steps,
            keys,
            agenda,
            ..
        } = &*self.0;
        schedules::due(steps, keys, agenda, &types, max).await
    }

    async fn record_firing(&self, firing: Firing) -> Result<bool, StoreError> {
        let parts = &*self.0;
        let partition = parts.keys.of_user(&firing.user);
        let root = parts.keys.root(partition);
        let is_recorded = schedules::record_firing(&parts.steps, root, &firing).await?;
        // It may be due sooner than it was put off to.
        parts.agenda.changed(partition);
        Ok(is_recorded)
    }

    async fn spend_request(&self, user: &UserId, max: u32) -> Result<Spent, StoreError> {
        let parts = &*self.0;
        let partition = parts.keys.of_user(user);
        let place = (partition, parts.keys.root(partition));
        let lines = (&parts.requests, &parts.exhausted);
        requests::spend(&parts.steps, lines, place, user, max).await
    }

    fn record_submit_latency(&self, user: &UserId, took: Duration) {
        self.0.notes.submit_latency(user, took);
    }

    async fn file(&self, user: &UserId, sha256: &Sha256Digest) -> Result<Option<File>, StoreError> {
        files::find(&self.0.steps, &self.0.keys, user, sha256).await
    }

    async fn keep_file(&self, user: &UserId, file: File) -> Result<Option<File>, StoreError> {
        files::keep(&self.0.steps, &self.0.keys, user, file).await
    }

    async fn unreferenced(
        &self,
        user: &UserId,
        before: Timestamp,
        after: Option<FileCursor>,
    ) -> Result<UnreferencedFiles, StoreError> {
        unreferenced::page(&self.0.steps, &self.0.keys, user, before, after).await
    }

    async fn forget_file(
        &self,
        user: &UserId,
        name: &BlobName,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        unreferenced::forget(&self.0.steps, &self.0.keys, user, name, before).await
    }

    async fn unowned(&self, names: Vec<BlobName>) -> Result<Vec<BlobName>, StoreError> {
        let Parts { steps, keys, .. } = &*self.0;
        files::unowned(steps, keys, names, self.0.orphans_kept_for).await
    }

    async fn agree(&self, name: &str, proposed: &str) -> Result<String, StoreError> {
        agreed::on(&self.0.steps, &self.0.keys, name, proposed).await
    }

    async fn webhook_secret(&self, user: &UserId) -> Result<Option<OwnSecret>, StoreError> {
        webhook_secrets::find(&self.0.steps, self.0.root(user), user).await
    }

    async fn set_webhook_secret(
        &self,
        user: &UserId,
        secret: &WebhookSecret,
        overlap: Duration,
    ) -> Result<OwnSecret, StoreError> {
        webhook_secrets::set(&self.0.steps, self.0.root(user), user, secret, overlap).await
    }

    async fn create_api_key(&self, key: ApiKey) -> Result<(), StoreError> {
        api_keys::create(&self.0.steps, &self.0.keys, &key).await
    }

    async fn create_first_api_key(&self, key: ApiKey) -> Result<bool, StoreError> {
        api_keys::create_first(&self.0.steps, &self.0.keys, &key).await
    }

    async fn api_key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        api_keys::find(&self.0.steps, &self.0.keys, id).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        api_keys::all(&self.0.steps, &self.0.keys).await
    }

    async fn revoke_api_key(&self, id: &str) -> Result<bool, StoreError> {
        api_keys::revoke(&self.0.steps, &self.0.keys, id).await
    }

    fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// Whether Redis takes writes: of a cluster, at least one part of it.
    async fn ping(&self) -> Result<(), StoreError> {
        let Parts {
            steps, keys, guard, ..
        } = &*self.0;
        if let Some(fault) = guard.fault() {
            return Err(unavailable(&fault));
        }
        if steps.marks().is_lost() {
            return Err(StoreError::StateLost);
        }
        let pinged_at = || {
            self.0
                .pinged_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let is_recent = |at: Instant| at.elapsed() < PING_HOLDS_FOR;
        if !steps.silence().is_anywhere() && pinged_at().is_some_and(is_recent) {
            return Ok(());
        }
        let mut failure = None;
        for partition in keys.partitions() {
            match steps.mark(keys.root(partition)).await {
                Ok(_) => {
                    *pinged_at() = Some(Instant::now());
                    return Ok(());
                }
                Err(error) if steps.link().is_one_server() => return Err(error),
                Err(StoreError::StateLost) => return Err(StoreError::StateLost),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| unavailable("there are no partitions")))
    }

    fn durability(&self) -> Durability {
        self.0.guard.durability()
    }

    fn guarantees(&self) -> Guarantees {
        self.0.guard.guarantees()
    }

    async fn close(&self) {
        if let Err(error) = self.0.write_notes().await {
            tracing::warn!(%error, "the ledger could not be written");
        }
        self.0.remember().await;
    }
}

/// Of steps in several partitions: lost state anywhere counts, and else whatever went well.
fn outcome_of_all(outcomes: Vec<Result<(), StoreError>>) -> Result<(), StoreError> {
    if outcomes.contains(&Err(StoreError::StateLost)) {
        return Err(StoreError::StateLost);
    }
    let failed = outcomes.iter().all(Result::is_err);
    outcomes
        .into_iter()
        .next()
        .filter(|_| failed)
        .unwrap_or(Ok(()))
}

/// Nothing counts as zero.
fn number(text: &Option<String>) -> Result<u64, StoreError> {
    match text {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| reply::senseless()),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}
