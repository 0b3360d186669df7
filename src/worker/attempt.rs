//! One attempt, from its lease to its report.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Workshop;
use super::handover;
use super::pulse::{Beat, Pulse};
use super::report;
use crate::blobs::BlobError;
use crate::domain::task::{Progress, State, Task, TaskError};
use crate::domain::task_type::TaskType;
use crate::failpoints::FailPoint;
use crate::results::Refused;
use crate::runner::{Attempt, AttemptError, Runner, Success};
use crate::store::{Found, Held, Lease};

/// A lease that is about to be used.
pub struct Execution {
    pub shop: Workshop,
    pub task_type: Arc<TaskType>,
    pub runner: Arc<dyn Runner>,
    pub held: Held,
    pub lease: Lease,
    /// From before the lease was asked for.
    pub leased_at: std::time::Instant,
    /// Fires when the process can wait no longer for what runs.
    pub hand_back: CancellationToken,
}

type Ran = Result<Success, AttemptError>;
type Work<'a> = Pin<&'a mut (dyn Future<Output = Ran> + Send)>;

/// Why an attempt is stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Cancelled,
    TimedOut,
    /// The process ends.
    HandBack,
    /// Someone else may run the task by now.
    Lost,
}

/// How a stopped runner may still use its time, until it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Progress that waits to be looked at; runners wait when there is more.
const PROGRESS_WAITING_MAX: usize = 16;

impl Execution {
    pub async fn run(self) {
        let leased_at = Instant::from_std(self.leased_at);
        let mut pulse = Pulse::new(self.shop.clone(), self.held.clone(), leased_at);
        let file_paths = match self.file_paths().await {
            Ok(paths) => paths,
            Err(error) => return self.failed(error, &pulse).await,
        };
        let cancel = CancellationToken::new();
        let (progress, mut heard) = mpsc::channel(PROGRESS_WAITING_MAX);
        let attempt = Attempt {
            task: self.lease.task.clone(),
            token: self.lease.token,
            idempotency_key: self.lease.idempotency_key.clone(),
            file_paths,
            timeout: self.task_type.timeout,
            cancel: cancel.clone(),
            progress,
        };
        FailPoint::BeforeRun.reached();
        let work = AssertUnwindSafe(self.runner.run(attempt)).catch_unwind();
        let work = work.map(|ran| ran.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))));
        let mut work = Box::pin(work);
        // The work is looked at first: an attempt that ends at once costs no timer and no watch.
        let stop = tokio::select! {
            biased;
            ran = &mut work => {
                pulse.last_progress(&mut heard).await;
                return self.ran(ran, &pulse).await;
            }
            stop = self.attend(&mut pulse, &mut heard) => stop,
        };
        cancel.cancel();
        let ran = match stop {
            Stop::Lost => None,
            Stop::Cancelled | Stop::TimedOut | Stop::HandBack => {
                wind_down(work.as_mut(), &mut pulse).await
            }
        };
        drop(work);
        self.stopped(stop, ran, &pulse).await;
    }

    /// Keeps the lease and carries progress, until there is a reason to stop.
    async fn attend(&self, pulse: &mut Pulse, heard: &mut mpsc::Receiver<Progress>) -> Stop {
        let mut watch = self.shop.store.watch(&self.held.task);
        let deadline = tokio::time::sleep(self.task_type.timeout);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => return Stop::TimedOut,
                () = self.hand_back.cancelled() => return Stop::HandBack,
                () = watch.changed() => if self.is_cancelled(pulse).await { return Stop::Cancelled },
                Some(progress) = heard.recv() => pulse.take(progress),
                () = pulse.due() => match pulse.beat().await {
                    Beat::Held => {}
                    Beat::CancelRequested => return Stop::Cancelled,
                    Beat::Lost => return Stop::Lost,
                },
            }
        }
    }

    /// The task has changed, perhaps through our own progress: a read tells. Whatever else it may be
    /// is for the next heartbeat to find out.
    async fn is_cancelled(&self, pulse: &mut Pulse) -> bool {
        let found = self.shop.store.get(&self.held.user, &self.held.task).await;
        match found {
            Ok(Found::Here(task)) if task.attempt != self.lease.task.attempt => pulse.hurry(),
            Ok(Found::Here(task)) if task.state == State::Cancelled => return true,
            Ok(Found::Here(task)) if task.state == State::Running => {}
            Ok(Found::Here(_) | Found::Missing(_)) => pulse.hurry(),
            Err(_) => {}
        }
        false
    }

    async fn stopped(&self, stop: Stop, ran: Option<Ran>, pulse: &Pulse) {
        match (stop, ran) {
            (Stop::Lost, _) => {
                tracing::info!(task = %self.held.task, token = self.held.token.0, "an attempt was given up: its lease is lost");
            }
            (Stop::Cancelled, _) => {
                let error = AttemptError::retryable("cancelled", "the task was cancelled");
                self.failed(error, pulse).await;
            }
            // It was done after all.
            (Stop::TimedOut | Stop::HandBack, Some(Ok(result))) => {
                self.ran(Ok(result), pulse).await;
            }
            (Stop::TimedOut, _) => {
                let seconds = self.task_type.timeout.as_secs_f64();
                let text = format!("the attempt took longer than {seconds} s");
                self.failed(AttemptError::retryable("timeout", text), pulse)
                    .await;
            }
            (Stop::HandBack, _) => {
                report::release(&self.shop, self.held.clone(), pulse.until()).await;
            }
        }
    }

    async fn ran(&self, ran: Ran, pulse: &Pulse) {
        let result = match ran {
            Ok(Success::Result(result)) => result,
            Ok(Success::HandedOver) => return self.handed_over(pulse).await,
            Err(error) => return self.failed(error, pulse).await,
        };
        FailPoint::BeforeCompletion.reached();
        let recorded = report::complete(&self.shop, &self.held, result, pulse.until()).await;
        FailPoint::AfterCompletion.reached();
        let error = match recorded {
            Ok(()) => return,
            Err(Refused::TooLarge) => AttemptError::permanent(
                "result-too-large",
                format!(
                    "the result is larger than {} bytes",
                    self.shop.limits.result_bytes_max
                ),
            ),
            Err(Refused::NotStored(error)) => {
                tracing::error!(task = %self.held.task, %error, "a result could not be stored");
                AttemptError::retryable("result-not-stored", "the result could not be stored")
            }
        };
        self.failed(error, pulse).await;
    }

    /// Whoever goes on with it has the rest of the attempt's time, whatever becomes of this process.
    async fn handed_over(&self, pulse: &Pulse) {
        let left = self
            .task_type
            .timeout
            .saturating_sub(self.leased_at.elapsed());
        let held = Held {
            lease: left.max(self.task_type.lease),
            ..self.held.clone()
        };
        let worker = format!("the service of {}", self.task_type.name);
        let extension = report::hand_over(&self.shop, held, &worker, pulse.until()).await;
        match extension {
            Some(extension) if extension.cancel_requested => {
                let error = AttemptError::retryable("cancelled", "the task was cancelled");
                self.failed(error, pulse).await;
            }
            Some(_) => {
                tracing::info!(task = %self.held.task, "an attempt was handed over");
                handover::watch(&self.shop, self.held.clone(), &self.lease.task);
            }
            None => {}
        }
    }

    async fn failed(&self, error: AttemptError, pulse: &Pulse) {
        let Task {
            attempt,
            max_attempts,
            ..
        } = self.lease.task;
        let earliest = error.retry_after.unwrap_or_default();
        let backoff = || {
            let chance = fastrand::f64();
            let usual = self.task_type.retry.backoff(attempt, max_attempts, chance);
            usual.max(earliest)
        };
        let retry_in = (!error.permanent).then(backoff);
        let (code, message) = (&error.code, &error.message);
        tracing::info!(task = %self.held.task, task_type = self.task_type.name, attempt, code, message, "an attempt failed");
        let error = TaskError {
            code: error.code,
            message: error.message,
            attempt,
            permanent: error.permanent,
        };
        FailPoint::BeforeFailure.reached();
        report::fail(&self.shop, &self.held, error, retry_in, pulse.until()).await;
        FailPoint::AfterFailure.reached();
    }

    /// Where the task's files can be read.
    async fn file_paths(&self) -> Result<Vec<PathBuf>, AttemptError> {
        let mut paths = Vec::with_capacity(self.lease.task.files.len());
        for file in &self.lease.task.files {
            let gone =
                || AttemptError::permanent("file-missing", "the task's file is not there any more");
            let name = file.blob().ok_or_else(gone)?;
            let path = self.shop.blobs.local_path(&name).await;
            paths.push(path.map_err(|error| match error {
                BlobError::Missing => gone(),
                BlobError::Full | BlobError::Failed(_) => {
                    tracing::error!(task = %self.held.task, %error, "a file cannot be read");
                    AttemptError::retryable(
                        "file-unavailable",
                        "the task's file cannot be read now",
                    )
                }
            })?);
        }
        Ok(paths)
    }
}

/// Gives the work a little time to stop, and keeps its lease meanwhile.
async fn wind_down(mut work: Work<'_>, pulse: &mut Pulse) -> Option<Ran> {
    let end = tokio::time::sleep(STOP_GRACE);
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            ran = &mut work => return Some(ran),
            () = &mut end => return None,
            () = pulse.due() => if pulse.beat().await == Beat::Lost { return None },
        }
    }
}

/// The text of a panic is for the log only.
fn panicked(panic: &(dyn Any + Send)) -> AttemptError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text, "a runner panicked");
    AttemptError::retryable("panic", "the runner broke off")
}
