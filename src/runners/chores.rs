//! What the task types share that work on what is kept of their user.

use crate::runner::{AttemptError, Success};
use crate::store::StoreError;

/// The store may do it at the next attempt.
pub fn not_now(error: StoreError) -> AttemptError {
    tracing::warn!(%error, "a chore could not go on");
    AttemptError::retryable("store-unavailable", "what is kept cannot be reached now")
}

/// As the attempt's result.
pub fn result<T: serde::Serialize>(value: &T) -> Result<Success, AttemptError> {
    let written = serde_json::value::to_raw_value(value);
    written.map(Success::from).map_err(|error| {
        tracing::error!(%error, "a result cannot be written as JSON");
        AttemptError::permanent("result-not-written", "the result cannot be written")
    })
}
