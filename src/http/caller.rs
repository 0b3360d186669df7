//! Who sent this request, and what is known of it since it arrived. The layers put both into the request before
//! a handler sees it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::api::Api;
use super::code::Code;
use super::problem::Problem;
use crate::domain::principal::{Principal, UserId};

/// The authenticated caller, who has the scope that the route needs.
#[derive(Clone, Debug)]
pub struct Caller(pub Principal);

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| {
            Problem::new(Code::Internal, "")
                .caused_by("a route without authentication asks who calls")
        })
    }
}

/// What every request has from its arrival on.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub id: RequestId,
    /// When the first byte of its head was handled, for latencies.
    pub at: Instant,
    /// Whose request it turned out to be, for the log.
    pub user: Arc<OnceLock<UserId>>,
}

impl Arrival {
    pub fn now(headers: &HeaderMap) -> Self {
        Arrival {
            id: RequestId::of(headers),
            at: Instant::now(),
            user: Arc::default(),
        }
    }
}

impl FromRequestParts<Api> for Arrival {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let arrival = parts.extensions.get::<Arrival>().cloned();
        arrival.ok_or_else(|| Problem::new(Code::Internal, "").caused_by("a request without an id"))
    }
}

/// The id of a request: the client's, if it sent a usable one, else ours.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    const LENGTH_MAX: usize = 128;

    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(Self::HEADER).and_then(|id| id.to_str().ok());
        sent.filter(|id| Self::is_usable(id))
            .map_or_else(Self::random, |id| RequestId(id.into()))
    }

    pub fn random() -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        let text = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        RequestId((&*text).into())
    }

    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some((Self::HEADER, HeaderValue::from_str(&self.0).ok()?))
    }

    /// Plain enough to stand in a log line as it is.
    fn is_usable(id: &str) -> bool {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (1..=Self::LENGTH_MAX).contains(&id.len()) && id.bytes().all(legal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_request_id_is_kept_and_any_other_replaced() {
        let id_for = |sent: &'static str| {
            let headers =
                HeaderMap::from_iter([(RequestId::HEADER, HeaderValue::from_static(sent))]);
            RequestId::of(&headers).0
        };
        assert_eq!(&*id_for("abc-1.2_Z"), "abc-1.2_Z");
        for bad in ["", "a b", "a;b", "\"x\""] {
            assert_ne!(&*id_for(bad), bad);
        }
        assert!(!RequestId::is_usable(&"x".repeat(129)));
        assert_eq!(RequestId::of(&HeaderMap::new()).0.len(), 36);
    }
}
