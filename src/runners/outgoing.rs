//! What requests that go out mean for an attempt.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::egress::Answer;
use crate::egress::error::EgressError;
use crate::runner::AttemptError;
use crate::store::StoreError;

/// Longer ones are as good as none.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

pub fn deadline(span: Duration) -> Instant {
    Instant::now() + span.min(LONGEST)
}

pub fn attempt_error(error: EgressError) -> AttemptError {
    AttemptError {
        code: error.code().to_owned(),
        message: error.to_string(),
        permanent: error.is_permanent(),
        retry_after: None,
    }
}

/// What was needed to make the request cannot be looked up now.
pub fn store_error(error: StoreError) -> AttemptError {
    tracing::warn!(%error, "a message was not sent");
    AttemptError::retryable(
        "store-unavailable",
        "the service could not read its records",
    )
}

/// An answer that is no success: redirects and statuses of 4xx are for good, save 408, 425 and 429; others are
/// tried again, and no earlier than `Retry-After` says.
pub fn refused(answer: &Answer) -> AttemptError {
    let status = answer.status().as_u16();
    AttemptError {
        code: "http-status".to_owned(),
        message: format!("the answer was {status}"),
        permanent: matches!(status, 300..=499) && !matches!(status, 408 | 425 | 429),
        retry_after: answer.retry_after(Timestamp::now()),
    }
}
