//! The port to what executes a task.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::task::{FencingToken, Progress, Task};
use std::path::PathBuf;

#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Runs one attempt to its end. When `attempt.cancel` fires, what runs must have stopped before this
    /// returns. Dropping the future must stop it too.
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError>;

    /// What an attempt spends its time on, which decides the bound that it counts against.
    fn load(&self) -> Load;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Load {
    /// The processor: parsers, commands. Bounded by `JUSTONCE_WORKERS`.
    Processor,
    /// Waiting for something else. Bounded by [`Load::WAITING_MAX`].
    Waiting,
}

impl Load {
    /// Attempts at a time of work that waits.
    pub const WAITING_MAX: usize = 256;
}

/// One execution of a task.
#[derive(Debug)]
pub struct Attempt {
    pub task: Task,
    pub token: FencingToken,
    /// The key that the task was first submitted with, to be passed on.
    pub idempotency_key: Option<String>,
    /// Where the bytes of `task.files` can be read, in the same order.
    pub file_paths: Vec<PathBuf>,
    pub timeout: Duration,
    pub cancel: CancellationToken,
    /// The newest progress wins; older values may be passed over.
    pub progress: mpsc::Sender<Progress>,
}

/// How an attempt ended that did not fail.
#[derive(Debug)]
pub enum Success {
    /// Its result.
    Result(Box<RawValue>),
    /// Someone outside goes on with it under the same lease, and will tell how it ended.
    HandedOver,
}

impl From<Box<RawValue>> for Success {
    fn from(result: Box<RawValue>) -> Self {
        Success::Result(result)
    }
}

/// Why an attempt failed; texts are for the client, without internals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptError {
    /// A kebab-case word that programs can tell errors apart by.
    pub code: String,
    pub message: String,
    /// Whether another attempt could not help.
    pub permanent: bool,
    /// No other attempt should begin earlier than this from now; a longer backoff stays as it is.
    pub retry_after: Option<Duration>,
}

impl AttemptError {
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        AttemptError {
            code: code.to_owned(),
            message: message.into(),
            permanent: true,
            retry_after: None,
        }
    }

    pub fn retryable(code: &str, message: impl Into<String>) -> Self {
        AttemptError {
            code: code.to_owned(),
            message: message.into(),
            permanent: false,
            retry_after: None,
        }
    }

    /// What an attempt says that was told to stop.
    pub fn stopped() -> Self {
        AttemptError::retryable("stopped", "the attempt was stopped")
    }
}
