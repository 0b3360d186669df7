//! The one thread that writes. What waits while it commits goes into the next transaction together:
//! alone a step pays for one fsync, and many share one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::checkpoint::Checkpoints;
use super::counters;
use super::step::{Effects, EndedEffect, Sql, Step};
use super::suppressed::Notes;
use crate::domain::timestamp::Timestamp;
use crate::failpoints::FailPoint;
use crate::seeded_faults::SeededFault;
use crate::store::StoreError;
use crate::store::ended::EndedTasks;
use crate::store::signals::Signals;

/// Steps in one transaction at most.
const BATCH_STEPS_MAX: usize = 512;

/// Steps that wait at most; further ones are refused at once.
const WAITING_STEPS_MAX: usize = 20_000;

/// How long a caller waits for its step; beyond it the outcome is unknown to it.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a commit takes with [`SeededFault::ReplyBeforeCommit`].
const SLOW_DISK: Duration = Duration::from_millis(20);

/// What a step's reply stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The reply waits for the fsync.
    Durable,
    /// A power loss may undo the step, as leases and heartbeats can be: the workers that hold them are
    /// then gone too. A killed process undoes nothing.
    Relaxed,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

/// Sends steps to the writing thread.
pub struct Writer {
    jobs: SyncSender<Message>,
}

enum Message {
    Job(Job),
    Close(oneshot::Sender<()>),
}

struct Job {
    promise: Promise,
    run: Box<dyn FnOnce(&mut Step<'_>) -> Executed + Send>,
}

/// A step that has run, but is not committed.
struct Executed {
    failure: Option<StoreError>,
    reply: Reply,
}

/// Tells a caller what became of its step.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl Writer {
    pub fn start(
        mut conn: Connection,
        signals: Signals,
        ended: Arc<EndedTasks<i64>>,
        notes: Arc<Notes>,
    ) -> Result<Self, StartError> {
        let (jobs, inbox) = sync_channel(WAITING_STEPS_MAX);
        let unfinished = counters::unfinished(&conn)?;
        let checkpoints = Checkpoints::of(&mut conn)?;
        let thread = Thread {
            conn,
            inbox,
            signals,
            ended,
            notes,
            checkpoints,
            promise: Promise::Durable,
            unfinished,
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                // Without its writer the store could answer nothing ever again.
                if catch_unwind(AssertUnwindSafe(|| thread.run())).is_err() {
                    tracing::error!("the thread that writes has died: stopping at once");
                    std::process::abort();
                }
            })?;
        Ok(Writer { jobs })
    }

    pub async fn step<T, F>(&self, promise: Promise, verb: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Step<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let run = Box::new(move |step: &mut Step<'_>| match verb(step) {
            Ok(value) => Executed {
                failure: None,
                reply: Box::new(move |committed| drop(sender.send(committed.map(|()| value)))),
            },
            Err(error) => Executed {
                failure: Some(store_error(&error)),
                reply: Box::new(move |committed| drop(sender.send(committed.and(Err(gone()))))),
            },
        });
        self.jobs
            .try_send(Message::Job(Job { promise, run }))
            .map_err(|refused| match refused {
                TrySendError::Full(_) => StoreError::Unavailable("too many steps wait".into()),
                TrySendError::Disconnected(_) => gone(),
            })?;
        // The step goes on: whoever repeats the request learns what became of it.
        let late = |_| StoreError::Unavailable("the step takes too long".into());
        timeout(ANSWER_MAX, receiver)
            .await
            .map_err(late)?
            .map_err(|_| gone())?
    }

    /// Resolves when all steps sent before are done and the database is closed.
    pub async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        let jobs = self.jobs.clone();
        let sent = tokio::task::spawn_blocking(move || jobs.send(Message::Close(sender)));
        if let Ok(Ok(())) = sent.await {
            let _ = receiver.await;
        }
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

pub fn store_error(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        _ => StoreError::Unavailable(error.to_string()),
    }
}

struct Thread {
    conn: Connection,
    inbox: Receiver<Message>,
    signals: Signals,
    ended: Arc<EndedTasks<i64>>,
    notes: Arc<Notes>,
    checkpoints: Checkpoints,
    /// What commits of this connection promise now.
    promise: Promise,
    /// Tasks that have not ended, as committed.
    unfinished: i64,
}

impl Thread {
    fn run(mut self) {
        while let Ok(message) = self.inbox.recv() {
            let mut close = None;
            let mut jobs = Vec::new();
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Job(job) => jobs.push(job),
                    Message::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                next = if jobs.len() < BATCH_STEPS_MAX {
                    self.inbox.try_recv().ok()
                } else {
                    None
                };
            }
            if !jobs.is_empty() {
                self.transact(jobs);
            }
            if let Some(done) = close {
                if let Err((_, error)) = self.conn.close() {
                    tracing::error!(%error, "the database was not closed cleanly");
                }
                let _ = done.send(());
                return;
            }
        }
    }

    fn transact(&mut self, jobs: Vec<Job>) {
        let mut effects = Effects {
            unfinished: self.unfinished,
            ..Effects::default()
        };
        let mut replies = Vec::with_capacity(jobs.len());
        let outcome = self.execute(jobs, &mut effects, &mut replies);
        if outcome.is_ok() {
            self.tell(effects);
        } else {
            self.notes.put_back(effects.written);
            if !self.conn.is_autocommit()
                && let Err(error) = self.conn.execute_batch("ROLLBACK")
            {
                abort(&error);
            }
        }
        for reply in replies {
            reply(outcome.clone());
        }
        if let Err(error) = self.checkpoints.after_commit(&self.conn) {
            match store_error(&error) {
                StoreError::Full => tracing::warn!("no room to move the log into the database"),
                StoreError::Unavailable(_) if is_busy(&error) => {}
                StoreError::Unavailable(_) | StoreError::StateLost => abort(&error),
            }
        }
    }

    fn execute(
        &mut self,
        jobs: Vec<Job>,
        effects: &mut Effects,
        replies: &mut Vec<Reply>,
    ) -> Result<(), StoreError> {
        let durable = jobs.iter().any(|job| job.promise == Promise::Durable);
        self.begin(if durable {
            Promise::Durable
        } else {
            Promise::Relaxed
        })?;
        let mut failure = None;
        for job in jobs {
            let mut step = Step {
                sql: Sql::new(&self.conn),
                now: now(),
                effects,
            };
            let executed = catch_unwind(AssertUnwindSafe(|| (job.run)(&mut step)));
            match executed {
                Ok(executed) => {
                    failure = failure.or(executed.failure);
                    replies.push(executed.reply);
                }
                Err(_) => {
                    failure = failure.or(Some(StoreError::Unavailable("a step panicked".into())))
                }
            }
            if failure.is_some() {
                break;
            }
        }
        if let Some(failure) = failure {
            tracing::error!(error = %failure, steps = replies.len(), "a transaction was given up");
            return Err(failure);
        }
        effects
            .counters
            .write(&Sql::new(&self.conn), now())
            .map_err(|error| store_error(&error))?;
        if SeededFault::ReplyBeforeCommit.is_on() {
            replies.drain(..).for_each(|reply| reply(Ok(())));
            std::thread::sleep(SLOW_DISK);
        }
        FailPoint::BeforeCommit.reached();
        self.conn.execute_batch("COMMIT").map_err(|error| {
            if store_error(&error) != StoreError::Full {
                abort(&error);
            }
            store_error(&error)
        })?;
        FailPoint::AfterCommit.reached();
        Ok(())
    }

    fn begin(&mut self, promise: Promise) -> Result<(), StoreError> {
        if promise != self.promise {
            let synchronous = match promise {
                Promise::Durable => "FULL",
                Promise::Relaxed => "NORMAL",
            };
            self.conn
                .pragma_update(None, "synchronous", synchronous)
                .map_err(|error| store_error(&error))?;
            self.promise = promise;
        }
        self.conn
            .execute_batch("BEGIN")
            .map_err(|error| store_error(&error))
    }

    fn tell(&mut self, effects: Effects) {
        self.unfinished = effects.unfinished;
        for one in effects.suppressed {
            self.notes.suppressed(one);
        }
        for effect in effects.ended {
            match effect {
                EndedEffect::Remember(task) => self.ended.remember(*task),
                EndedEffect::Drop(_) if SeededFault::ForgottenAndRemembered.is_on() => {}
                EndedEffect::Drop(seq) => self.ended.forget(&seq),
            }
        }
        if effects.work {
            FailPoint::BeforeWake.reached();
            self.signals.work_is_ready();
        }
        if effects.due.is_some() {
            self.signals.due_is_sooner();
        }
        for id in &effects.changed {
            self.signals.task_changed(id);
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// After a failed write or fsync nobody knows what the disk holds, and trying again can hide the loss: the
/// only honest state is the one that the next start reads.
fn abort(error: &rusqlite::Error) -> ! {
    tracing::error!(%error, "the database cannot be written: stopping at once, nothing unsaved was acknowledged");
    std::process::abort()
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
