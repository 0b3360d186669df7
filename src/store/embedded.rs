//! The store of one machine: SQLite, one file, one process.
//!
//! One thread writes, and commits what waits together (`writer`); reads have connections of their own.
//! A task's row, its key, its claim on a fingerprint, its place in the queue and the counters change in
//! one transaction. Duplicates of ended tasks are answered from memory (`ended`), which only the writing
//! thread fills and empties; what is said about duplicates is written behind (`suppressed`).
//!
//! Why SQLite, not a key-value engine? At group commit they are equally fast here; SQLite's crash testing
//! is the most trusted there is, and an operator can open the file.

mod admit;
mod api_key;
mod audit;
mod callbacks;
mod changes;
mod checkpoint;
mod conflicts;
mod counters;
mod create;
mod ending;
mod file;
mod history;
mod join;
mod key;
mod leases;
mod lifecycle;
mod list;
mod nonces;
mod outside;
mod pauses;
mod readers;
mod record;
mod rescue;
mod schedules;
mod schema;
mod step;
mod suppressed;
mod turns;
mod unreferenced;
mod webhook_secret;
mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::readers::Readers;
use self::step::Sql;
use self::suppressed::Notes;
use self::writer::{Promise, Writer, now};
use super::ended::EndedTasks;
use super::request_windows::RequestWindows;
use super::signals::Signals;
use super::{
    Admission, AdmissionAnswer, Admitted, ApiKey, Cancelled, Checked, DueSchedules, Durability,
    Extension, Fenced, FileCursor, Firing, Forgotten, Found, Held, Holder, Lease, LeaseRequest,
    LedgerEntry, ListFilter, NewSchedule, Page, PutSchedule, RedriveFilter, Redriven, RedrivenMany,
    Rescued, Store, StoreError, TaskResult, UnreferencedFiles, Withdrawn,
};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::history::History;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::quota::Spent;
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::domain::stats::Stats;
use crate::domain::task::{Progress, Task, TaskError, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{OwnSecret, WebhookSecret};
use crate::domain::worker::Worker;
use crate::seeded_faults::SeededFault;

pub use self::audit::{AuditError, Auditor};
pub use self::schema::OpenError;

/// What is said about duplicates is written this long after its answer at the latest.
const WRITE_BEHIND: Duration = Duration::from_millis(50);

/// Submissions that one step admits at most: others wait for it.
const ADMISSIONS_MAX: usize = 128;

/// Files kept without a task are kept this long.
const FILE_RETENTION: Duration = Duration::from_secs(86_400);

pub struct EmbeddedStore(Arc<Parts>);

struct Parts {
    writer: Writer,
    /// None in memory, where the writer reads too.
    readers: Option<Readers>,
    signals: Signals,
    ended: Arc<EndedTasks<i64>>,
    notes: Arc<Notes>,
    /// Held while notes are on their way.
    writing_notes: tokio::sync::Mutex<()>,
    durability: Durability,
    queue_tasks_max: u64,
    requests: RequestWindows,
}

/// Where the tasks are kept.
#[derive(Clone, Debug)]
pub enum Location {
    /// A file in this folder.
    Folder(PathBuf),
    /// Nowhere: gone with the process.
    Memory,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot start the store: {0}")]
    Writer(#[from] writer::StartError),
}

impl EmbeddedStore {
    /// Opens the store and ends the leases of the last process. Must run within a Tokio runtime; the caller
    /// holds the only lock on the folder. At most `queue_tasks_max` tasks may be unfinished.
    pub fn open(location: &Location, queue_tasks_max: u64) -> Result<Self, StartError> {
        let path = match location {
            Location::Folder(folder) => Some(folder.join("justonce.db")),
            Location::Memory => None,
        };
        let crashed = path.as_deref().is_some_and(left_open);
        let conn = schema::open_writer(path.as_deref())?;
        if let Some(path) = path.as_deref().filter(|_| crashed) {
            tracing::info!("the last process did not close the store: checking it");
            schema::quick_check(&conn, path)?;
        }
        let wrap = |error| OpenError::Sqlite("the store".into(), error);
        let returned = rescue::end_leases_of_last_process(&conn, now()).map_err(wrap)?;
        if returned > 0 {
            tracing::info!(
                tasks = returned,
                "tasks of the last process are taken up again"
            );
        }
        let signals = Signals::default();
        let ended = Arc::new(EndedTasks::default());
        let notes: Arc<Notes> = Arc::default();
        let writer = Writer::start(conn, signals.clone(), ended.clone(), notes.clone())?;
        let durability = if path.is_some() {
            Durability::Fsync
        } else {
            Durability::Memory
        };
        let readers = path.map(Readers::new);
        let parts = Arc::new(Parts {
            writer,
            readers,
            signals,
            ended,
            notes,
            writing_notes: tokio::sync::Mutex::default(),
            durability,
            queue_tasks_max,
            requests: RequestWindows::default(),
        });
        tokio::spawn(write_behind(Arc::downgrade(&parts)));
        Ok(EmbeddedStore(parts))
    }
}

/// A clean close removes the write-ahead log.
fn left_open(path: &Path) -> bool {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).is_ok_and(|file| file.len() > 0)
}

async fn write_behind(parts: std::sync::Weak<Parts>) {
    let mut ticks = tokio::time::interval(WRITE_BEHIND);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(parts) = parts.upgrade() else { return };
        if let Err(error) = parts.write_notes().await {
            tracing::warn!(%error, "the ledger could not be written");
        }
    }
}

impl Parts {
    async fn durable<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut step::Step<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.step(Promise::Durable, verb).await
    }

    async fn relaxed<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut step::Step<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.step(Promise::Relaxed, verb).await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Sql<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.readers {
            Some(readers) => readers.read(query).await,
            None => self.relaxed(move |step| query(&step.sql)).await,
        }
    }

    /// As [`Parts::read`], after everything that was said about duplicates is written.
    async fn read_counted<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Sql<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        // Reads go on when nothing can be written.
        if let Err(error) = self.write_notes().await {
            tracing::warn!(%error, "the ledger could not be written");
        }
        self.read(query).await
    }

    async fn write_notes(&self) -> Result<(), StoreError> {
        // Who waits for it reads what was said before.
        let _alone = self.writing_notes.lock().await;
        if self.notes.is_empty() {
            return Ok(());
        }
        let notes = self.notes.clone();
        self.relaxed(move |step| notes.write(step)).await
    }

    /// All in one step, but for those that need none.
    async fn admit_together(
        self: &Arc<Self>,
        admissions: Vec<Admission>,
    ) -> Vec<Result<Admitted, StoreError>> {
        let (notes, queue_max) = (self.notes.clone(), self.queue_tasks_max);
        let mut admitted: Vec<_> = admissions
            .iter()
            .map(|admission| self.answer_from_memory(admission).map(Ok))
            .collect();
        let open = admissions.into_iter().zip(&admitted);
        let open: Vec<_> = open
            .filter_map(|(admission, known)| known.is_none().then_some(admission))
            .collect();
        let count = open.len();
        let decided = match count {
            0 => Ok(Vec::new()),
            _ => {
                let each = move |step: &mut step::Step<'_>| {
                    let admit = |one| admit::admit(step, one, &notes, queue_max);
                    open.iter().map(admit).collect::<rusqlite::Result<Vec<_>>>()
                };
                self.durable(each).await
            }
        };
        let mut decided: Vec<_> = match decided {
            Ok(decided) => decided.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        };
        let mut decided = decided.drain(..);
        for answer in &mut admitted {
            if answer.is_none() {
                *answer = decided.next();
            }
        }
        admitted.into_iter().flatten().collect()
    }

    /// A duplicate of an ended task that is remembered needs no step.
    fn answer_from_memory(&self, admission: &Admission) -> Option<Admitted> {
        // A callback may be one that the task does not have yet.
        if admission.submission.callback.is_some() {
            return None;
        }
        let now = now();
        let hit = self.ended.answer(admission, now)?;
        let (seq, run_time) = (hit.remembered.id, hit.remembered.run_time);
        self.notes.suppressed(join::note(
            admission,
            seq,
            run_time,
            hit.matched_by,
            true,
            now,
        ));
        let answer = AdmissionAnswer {
            task: Box::new(hit.remembered.one_more()),
            key_expires_at: hit.key_expires_at,
            ignored: join::ignored(
                &admission.submission,
                &hit.remembered.task,
                hit.remembered.window,
            ),
            disowned: admit::uploads(admission),
        };
        Some(Admitted::Duplicate {
            answer,
            matched_by: hit.matched_by,
        })
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        if let Some(answer) = self.0.answer_from_memory(&admission) {
            return Ok(answer);
        }
        let (notes, queue_max) = (self.0.notes.clone(), self.0.queue_tasks_max);
        let queued_apart = SeededFault::QueuedApart
            .is_on()
            .then(|| admission.task_id.clone());
        let admitted = self
            .0
            .durable(move |step| admit::admit(step, &admission, &notes, queue_max))
            .await?;
        if let Some(id) = queued_apart {
            self.0.durable(move |step| create::queue(step, &id)).await?;
        }
        Ok(admitted)
    }

    async fn admit_many(&self, admissions: Vec<Admission>) -> Vec<Result<Admitted, StoreError>> {
        let mut admitted = Vec::with_capacity(admissions.len());
        let mut rest = admissions.into_iter();
        loop {
            let together: Vec<_> = rest.by_ref().take(ADMISSIONS_MAX).collect();
            if together.is_empty() {
                return admitted;
            }
            admitted.extend(self.0.admit_together(together).await);
        }
    }

    async fn check(&self, admission: Admission) -> Result<Checked, StoreError> {
        self.0
            .read_counted(move |sql| admit::check(sql, &admission, now()))
            .await
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>, StoreError> {
        let promise = match request.holder {
            Holder::Inside => Promise::Relaxed,
            // It may survive a power loss, and its token must not be given out again.
            Holder::Outside { .. } => Promise::Durable,
        };
        self.0
            .writer
            .step(promise, move |step| leases::lease(step, &request))
            .await
    }

    async fn held(&self, held: &Held) -> Result<Fenced<Task>, StoreError> {
        let held = held.clone();
        self.0.read(move |sql| leases::held(sql, &held)).await
    }

    async fn extend(
        &self,
        held: Held,
        progress: Option<Progress>,
    ) -> Result<Fenced<Extension>, StoreError> {
        self.0
            .relaxed(move |step| leases::extend(step, &held, progress.as_ref()))
            .await
    }

    async fn hand_over(&self, held: Held, worker: &str) -> Result<Fenced<Extension>, StoreError> {
        let worker = worker.to_owned();
        self.0
            .durable(move |step| leases::hand_over(step, &held, &worker))
            .await
    }

    async fn complete(&self, held: Held, result: TaskResult) -> Result<Fenced<Task>, StoreError> {
        self.0
            .durable(move |step| leases::complete(step, &held, &result))
            .await
    }

    async fn fail(
        &self,
        held: Held,
        error: TaskError,
        retry_in: Option<Duration>,
    ) -> Result<Fenced<Task>, StoreError> {
        self.0
            .durable(move |step| leases::fail(step, &held, &error, retry_in))
            .await
    }

    async fn release(&self, held: Held) -> Result<Fenced<()>, StoreError> {
        self.0
            .relaxed(move |step| leases::release(step, &held))
            .await
    }

    async fn cancel(&self, user: &UserId, id: &TaskId) -> Result<Cancelled, StoreError> {
        let (user, id) = (user.clone(), id.clone());
        self.0
            .durable(move |step| lifecycle::cancel(step, &user, &id))
            .await
    }

    async fn withdraw(
        &self,
        user: &UserId,
        id: &TaskId,
        key: &IdempotencyKey,
    ) -> Result<Withdrawn, StoreError> {
        let (user, id, key) = (user.clone(), id.clone(), key.clone());
        self.0
            .durable(move |step| lifecycle::withdraw(step, &user, &id, &key))
            .await
    }

    async fn redrive(&self, user: &UserId, id: &TaskId) -> Result<Redriven, StoreError> {
        let (user, id) = (user.clone(), id.clone());
        self.0
            .durable(move |step| lifecycle::redrive(step, &user, &id))
            .await
    }

    async fn redrive_many(
        &self,
        user: &UserId,
        filter: RedriveFilter,
    ) -> Result<RedrivenMany, StoreError> {
        let user = user.clone();
        self.0
            .durable(move |step| lifecycle::redrive_many(step, &user, &filter))
            .await
    }

    async fn forget(&self, user: &UserId, id: &TaskId) -> Result<Forgotten, StoreError> {
        let (user, id) = (user.clone(), id.clone());
        self.0
            .durable(move |step| lifecycle::forget(step, &user, &id))
            .await
    }

    async fn rescue(&self) -> Result<Rescued, StoreError> {
        self.0.durable(rescue::rescue).await
    }

    async fn get(&self, user: &UserId, id: &TaskId) -> Result<Found<Task>, StoreError> {
        let (user, id) = (user.clone(), id.clone());
        let found = self
            .0
            .read_counted(move |sql| lifecycle::find(sql, &user, &id))
            .await?;
        Ok(found.map_or_else(Found::Missing, |record| Found::Here(record.task)))
    }

    async fn list(&self, user: &UserId, filter: ListFilter) -> Result<Page, StoreError> {
        let user = user.clone();
        self.0
            .read_counted(move |sql| list::list(sql, &user, &filter, now()))
            .await
    }

    async fn ledger(
        &self,
        user: &UserId,
        id: &TaskId,
    ) -> Result<Found<Vec<LedgerEntry>>, StoreError> {
        let (user, id) = (user.clone(), id.clone());
        self.0
            .read_counted(move |sql| suppressed::ledger(sql, &user, &id))
            .await
    }

    async fn stats(&self, user: Option<&UserId>) -> Result<Stats, StoreError> {
        let user = user.cloned();
        self.0
            .read_counted(move |sql| counters::stats(sql, user.as_ref(), now()))
            .await
    }

    async fn history(
        &self,
        user: &UserId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<History, StoreError> {
        let user = user.clone();
        self.0
            .read_counted(move |sql| history::history(sql, &user, from, to, now()))
            .await
    }

    async fn workers(&self, own: Worker) -> Result<Vec<Worker>, StoreError> {
        let mut workers = self.0.read(outside::workers).await?;
        workers.insert(0, own);
        Ok(workers)
    }

    async fn pause(&self, task_type: &str) -> Result<(), StoreError> {
        let task_type = task_type.to_owned();
        self.0
            .durable(move |step| pauses::pause(step, &task_type))
            .await
    }

    async fn resume(&self, task_type: &str) -> Result<(), StoreError> {
        let task_type = task_type.to_owned();
        self.0
            .durable(move |step| pauses::resume(step, &task_type))
            .await
    }

    async fn paused(&self) -> Result<BTreeSet<String>, StoreError> {
        self.0.read(pauses::all).await
    }

    async fn put_schedule(&self, schedule: NewSchedule) -> Result<PutSchedule, StoreError> {
        let put = self
            .0
            .durable(move |step| schedules::put(step, &schedule))
            .await?;
        self.0.signals.schedules_have_changed();
        Ok(put)
    }

    async fn schedule(
        &self,
        user: &UserId,
        name: &ScheduleName,
    ) -> Result<Option<Schedule>, StoreError> {
        let (user, name) = (user.clone(), name.clone());
        self.0
            .read(move |sql| schedules::find(sql, &user, &name))
            .await
    }

    async fn schedules(&self, user: &UserId) -> Result<Vec<Schedule>, StoreError> {
        let user = user.clone();
        self.0.read(move |sql| schedules::all(sql, &user)).await
    }

    async fn delete_schedule(
        &self,
        user: &UserId,
        name: &ScheduleName,
    ) -> Result<bool, StoreError> {
        let (user, name) = (user.clone(), name.clone());
        self.0
            .durable(move |step| schedules::delete(step, &user, &name))
            .await
    }

    async fn due_schedules(
        &self,
        types: Vec<String>,
        max: usize,
    ) -> Result<DueSchedules, StoreError> {
        let due = self
            .0
            .read(move |sql| schedules::due(sql, &types, max, now()))
            .await?;
        if !due.unreadable.is_empty() {
            self.0
                .relaxed(move |step| schedules::put_off(step, &due.unreadable))
                .await?;
        }
        Ok(due.schedules)
    }

    async fn record_firing(&self, firing: Firing) -> Result<bool, StoreError> {
        self.0
            .relaxed(move |step| schedules::record_firing(step, &firing))
            .await
    }

    /// In memory: there is no other process to count with, and a restart begins anew.
    async fn spend_request(&self, user: &UserId, max: u32) -> Result<Spent, StoreError> {
        Ok(self.0.requests.spend(user, max, Instant::now()))
    }

    fn record_submit_latency(&self, user: &UserId, took: Duration) {
        self.0.notes.submit_latency(user, took);
    }

    async fn file(&self, user: &UserId, sha256: &Sha256Digest) -> Result<Option<File>, StoreError> {
        let (user, sha256) = (user.clone(), *sha256);
        self.0
            .read(move |sql| file::find(sql, &user, &sha256))
            .await
    }

    async fn keep_file(&self, user: &UserId, file: File) -> Result<Option<File>, StoreError> {
        let user = user.clone();
        self.0
            .durable(move |step| file::keep(step, &user, &file, step.now.plus(FILE_RETENTION)))
            .await
    }

    async fn unreferenced(
        &self,
        user: &UserId,
        before: Timestamp,
        after: Option<FileCursor>,
    ) -> Result<UnreferencedFiles, StoreError> {
        let user = user.clone();
        self.0
            .read(move |sql| unreferenced::page(sql, &user, before, after.as_ref()))
            .await
    }

    async fn forget_file(
        &self,
        user: &UserId,
        name: &BlobName,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        let (user, name) = (user.clone(), name.clone());
        self.0
            .durable(move |step| unreferenced::forget(step, &user, &name, before))
            .await
    }

    async fn unowned(&self, names: Vec<BlobName>) -> Result<Vec<BlobName>, StoreError> {
        self.0
            .relaxed(move |step| file::unowned(&step.sql, names))
            .await
    }

    async fn webhook_secret(&self, user: &UserId) -> Result<Option<OwnSecret>, StoreError> {
        let user = user.clone();
        self.0
            .read(move |sql| webhook_secret::find(sql, &user))
            .await
    }

    async fn set_webhook_secret(
        &self,
        user: &UserId,
        secret: &WebhookSecret,
        overlap: Duration,
    ) -> Result<OwnSecret, StoreError> {
        let (user, secret) = (user.clone(), secret.clone());
        self.0
            .durable(move |step| webhook_secret::set(step, &user, &secret, overlap))
            .await
    }

    async fn create_api_key(&self, key: ApiKey) -> Result<(), StoreError> {
        self.0
            .durable(move |step| api_key::create(step, &key))
            .await
    }

    async fn create_first_api_key(&self, key: ApiKey) -> Result<bool, StoreError> {
        self.0
            .durable(move |step| api_key::create_first(step, &key))
            .await
    }

    async fn api_key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let id = id.to_owned();
        self.0.read(move |sql| api_key::find(sql, &id)).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.0.read(api_key::all).await
    }

    async fn revoke_api_key(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.0.durable(move |step| api_key::revoke(step, &id)).await
    }

    fn signals(&self) -> &Signals {
        &self.0.signals
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.relaxed(|_| Ok(())).await
    }

    fn durability(&self) -> Durability {
        self.0.durability
    }

    async fn close(&self) {
        if let Err(error) = self.0.write_notes().await {
            tracing::warn!(%error, "the ledger could not be written");
        }
        if let Some(readers) = &self.0.readers {
            readers.close();
        }
        self.0.writer.close().await;
    }
}
