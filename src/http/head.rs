//! What a submission says before its body.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::api::Api;
use super::caller::{Arrival, Caller};
use super::code::Code;
use super::prefer::Prefer;
use super::problem::Problem;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The head of a submission, found valid before a byte of the body is read.
#[derive(Clone, Debug)]
pub struct SubmissionHead {
    pub user: UserId,
    pub key: Option<SentKey>,
    pub prefer: Prefer,
    pub request_id: Arc<str>,
    pub received_at: Instant,
}

/// A key, and the spelling that its client used and will recognise.
#[derive(Clone, Debug)]
pub struct SentKey {
    pub key: IdempotencyKey,
    pub as_sent: HeaderValue,
}

impl SubmissionHead {
    pub fn key(&self) -> Option<&IdempotencyKey> {
        self.key.as_ref().map(|sent| &sent.key)
    }
}

impl FromRequestParts<Api> for SubmissionHead {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, api).await?;
        let arrival = Arrival::from_request_parts(parts, api).await?;
        Ok(SubmissionHead {
            user: principal.user,
            key: sent_key(&parts.headers)?,
            prefer: Prefer::of(&parts.headers),
            request_id: arrival.id.0,
            received_at: arrival.at,
        })
    }
}

/// Two headers could mean two intents: neither is taken.
fn sent_key(headers: &HeaderMap) -> Result<Option<SentKey>, Problem> {
    let invalid = |detail: String| Problem::new(Code::IdempotencyKeyInvalid, detail);
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(as_sent) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid("The header was sent more than once.".into()));
    }
    match IdempotencyKey::parse(as_sent.as_bytes()) {
        Ok(key) => Ok(Some(SentKey {
            key,
            as_sent: as_sent.clone(),
        })),
        Err(error) => Err(invalid(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&'static str]) -> Result<Option<String>, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static(value));
        }
        match sent_key(&headers) {
            Ok(sent) => Ok(sent.map(|sent| sent.key.as_str().to_owned())),
            Err(problem) => Err(problem.code()),
        }
    }

    #[test]
    fn one_key_or_none() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["\"a\""]), Ok(Some("a".into())));
        assert_eq!(key(&["a", "a"]), Err(Code::IdempotencyKeyInvalid));
        assert_eq!(key(&[""]), Err(Code::IdempotencyKeyInvalid));
    }
}
