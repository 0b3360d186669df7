//! A service of the operator's: it gets the task in a POST, and its answer is the result.
//!
//! 2xx completes the task with the JSON of the body. 202 hands it over: the service completes it later over
//! `/v1/leases`, and has the rest of the attempt's time for it. Redirects and 4xx fail for good, save 408, 425
//! and 429, which are retried like 5xx and broken connections, no earlier than `Retry-After` says. The
//! `Idempotency-Key` is the same for all attempts of a task, so that the service can tell them from new work.

use async_trait::async_trait;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::{Surroundings, outgoing, request};
use crate::domain::task::TaskId;
use crate::egress::{self, Answer, Egress};
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};

pub struct HttpRunner {
    url: Url,
    egress: Egress,
    result_bytes_max: usize,
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Of a refusal that is read to find out why, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Characters of the service's own words that are kept.
const DETAIL_LENGTH_MAX: usize = 500;

/// A problem document (RFC 9457), as far as it is passed on.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl HttpRunner {
    pub fn new(url: Url, surroundings: &Surroundings) -> Self {
        HttpRunner {
            url,
            egress: surroundings.egress.clone(),
            result_bytes_max: surroundings.limits.result_bytes_max,
        }
    }

    async fn post(&self, attempt: &Attempt) -> Result<Success, AttemptError> {
        let deadline = outgoing::deadline(attempt.timeout);
        let document = request::document(attempt);
        let mut request = egress::Request::post_json(self.url.clone(), document, deadline);
        request.headers.extend(idempotency_key(&attempt.task.id));
        let sent = self.egress.send(request).await;
        let answer = sent.map_err(outgoing::attempt_error)?;
        match answer.status().as_u16() {
            202 => Ok(Success::HandedOver),
            200..=299 => self.result(answer).await,
            _ => Err(refusal(answer).await),
        }
    }

    /// `null`, when the body is empty.
    async fn result(&self, answer: Answer) -> Result<Success, AttemptError> {
        let read = answer.body(self.result_bytes_max).await;
        let body = read.map_err(outgoing::attempt_error)?;
        let text = match body.trim_ascii() {
            [] => b"null",
            text => text,
        };
        let result = serde_json::from_slice(text).map(Success::Result);
        result.map_err(|_| {
            AttemptError::permanent("result-invalid", "the body of the answer is not JSON")
        })
    }
}

#[async_trait]
impl Runner for HttpRunner {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        // Whichever branch is not taken is dropped, and the request with it.
        tokio::select! {
            ended = self.post(&attempt) => ended,
            () = attempt.cancel.cancelled() => Err(AttemptError::stopped()),
        }
    }

    fn load(&self) -> Load {
        Load::Waiting
    }
}

/// An RFC 9651 String, as the draft of this header field wants it.
fn idempotency_key(task: &TaskId) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_str(&format!("\"{task}\"")).ok()?;
    Some((IDEMPOTENCY_KEY, value))
}

/// With what the service says about it, if it says so in the usual form.
async fn refusal(answer: Answer) -> AttemptError {
    let mut error = outgoing::refused(&answer);
    if let Ok(body) = answer.body(REFUSAL_BYTES_MAX).await
        && let Ok(Problem { detail }) = serde_json::from_slice(&body)
    {
        let shown = detail.chars().filter(|c| !c.is_control());
        let shown: String = shown.take(DETAIL_LENGTH_MAX).collect();
        error.message = format!("{}: {shown}", error.message);
    }
    error
}
