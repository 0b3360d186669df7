//! Tasks that someone outside goes on with: the lease lasts, and only a cancellation is waited for.
//!
//! Such a task takes no slot of this process. When the process ends, nothing is lost but the quick answer to
//! a cancellation: the lease stays with whoever has it.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Workshop, report};
use crate::domain::task::{State, Task, TaskError};
use crate::store::{Found, Held};

/// Handed-over tasks that one process watches. Others that are cancelled block their fingerprint until
/// their lease ends, or until who has it lets go.
pub const WATCHED_MAX: usize = 10_000;

/// Signals give latency; this poll gives correctness.
const POLL: Duration = Duration::from_secs(30);
/// How long a cancellation is told to the store before the lease is left to end by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Confirms a cancellation when it comes, so that the task stops to block its fingerprint.
pub fn watch(shop: &Workshop, held: Held, task: &Task) {
    let Ok(room) = shop.handovers.clone().try_acquire_owned() else {
        tracing::warn!(task = %held.task, "too many tasks are handed over: this one is not watched");
        return;
    };
    let (shop, attempt) = (shop.clone(), task.attempt);
    tokio::spawn(async move {
        if until_cancelled(&shop, &held, attempt).await {
            let error = TaskError {
                code: "cancelled".to_owned(),
                message: "the task was cancelled".to_owned(),
                attempt,
                permanent: false,
            };
            let until = tokio::time::Instant::now() + PATIENCE;
            report::fail(&shop, &held, error, None, until).await;
        }
        drop(room);
    });
}

/// False when there is nothing to confirm any more.
async fn until_cancelled(shop: &Workshop, held: &Held, attempt: u32) -> bool {
    let mut watch = shop.store.watch(&held.task);
    loop {
        match shop.store.get(&held.user, &held.task).await {
            Ok(Found::Here(task)) if task.attempt != attempt => return false,
            Ok(Found::Here(task)) if task.state == State::Cancelled => return true,
            Ok(Found::Here(task)) if task.state == State::Running => {
                let _ = timeout(POLL, watch.changed()).await;
            }
            Ok(Found::Here(_) | Found::Missing(_)) => return false,
            Err(_) => sleep(POLL).await,
        }
    }
}
