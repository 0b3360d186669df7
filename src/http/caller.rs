//! Who sent this request. The layers put both into the request before a handler sees it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::api::Api;
use super::code::Code;
use super::problem::Problem;
use crate::domain::principal::Principal;

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

/// The id of this request: the client's, if it sent a usable one, else ours.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

impl RequestId {
    const LENGTH_MAX: usize = 128;

    pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(Self::HEADER).and_then(|id| id.to_str().ok());
        sent.filter(|id| Self::is_usable(id))
            .map_or_else(Self::random, |id| RequestId(id.to_owned()))
    }

    pub fn random() -> Self {
        RequestId(uuid::Uuid::new_v4().to_string())
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

impl FromRequestParts<Api> for RequestId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let id = parts.extensions.get::<RequestId>().cloned();
        id.ok_or_else(|| Problem::new(Code::Internal, "").caused_by("a request without an id"))
    }
}

/// When the first byte of the request's head was handled, for latencies.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedAt(pub std::time::Instant);

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
        assert_eq!(id_for("abc-1.2_Z"), "abc-1.2_Z");
        for bad in ["", "a b", "a;b", "\"x\""] {
            assert_ne!(id_for(bad), bad);
        }
        assert!(!RequestId::is_usable(&"x".repeat(129)));
        assert_eq!(RequestId::of(&HeaderMap::new()).0.len(), 36);
    }
}
