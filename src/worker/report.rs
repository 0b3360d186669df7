//! Tells the store how an attempt ended, again and again until it is known or the lease is over.

use std::future::Future;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Workshop;
use crate::domain::task::TaskError;
use crate::results::{self, Refused};
use crate::store::{Extension, Fenced, Held, StoreError, TaskResult};

/// The first pause before a repeat; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Records a success; what cannot be recorded is for the caller to fail.
pub async fn complete(
    shop: &Workshop,
    held: &Held,
    result: Box<RawValue>,
    until: Instant,
) -> Result<(), Refused> {
    let result = results::keep(&*shop.blobs, &shop.limits, result).await?;
    let known = repeat(held, until, || {
        shop.store.complete(held.clone(), result.clone())
    });
    // Only bytes that were surely refused may go; where the outcome is unknown they stay.
    if let (Known::Lost, TaskResult::Blob { name, .. }) = (known.await, &result) {
        results::delete(&*shop.blobs, std::slice::from_ref(name)).await;
    }
    Ok(())
}

/// Records a failed attempt, or confirms that a cancelled one has stopped.
pub async fn fail(
    shop: &Workshop,
    held: &Held,
    error: TaskError,
    retry_in: Option<Duration>,
    until: Instant,
) {
    repeat(held, until, || {
        shop.store.fail(held.clone(), error.clone(), retry_in)
    })
    .await;
}

/// Passes a lease on for as long as `held` says; nothing when it was lost or may be over.
pub async fn hand_over(
    shop: &Workshop,
    held: Held,
    worker: &str,
    until: Instant,
) -> Option<Extension> {
    let passed_on = repeat(&held, until, || shop.store.hand_over(held.clone(), worker));
    match passed_on.await {
        Known::Recorded(extension) => Some(extension),
        Known::Lost | Known::Never => None,
    }
}

/// Hands a lease back; the attempt does not count.
pub async fn release(shop: &Workshop, held: Held, until: impl Into<Instant>) {
    repeat(&held, until.into(), || shop.store.release(held.clone())).await;
}

enum Known<T> {
    Recorded(T),
    Lost,
    /// The lease is over; the store will return the task by itself.
    Never,
}

/// The verbs of a lease may be repeated: a step that was executed answers the repeat the same way.
async fn repeat<T, F>(held: &Held, until: Instant, step: impl Fn() -> F) -> Known<T>
where
    F: Future<Output = Result<Fenced<T>, StoreError>>,
{
    let mut pause = PAUSE;
    loop {
        match step().await {
            Ok(Fenced::Recorded(answer)) => return Known::Recorded(answer),
            Ok(Fenced::Lost) => {
                tracing::info!(task = %held.task, token = held.token.0, "the lease was lost; nothing was recorded");
                return Known::Lost;
            }
            Err(error) if Instant::now() + pause >= until => {
                tracing::error!(task = %held.task, %error, "the end of an attempt could not be recorded");
                return Known::Never;
            }
            Err(error) => {
                tracing::warn!(task = %held.task, %error, "the end of an attempt is not recorded yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
