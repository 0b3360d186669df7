//! Who sent this request. The layers put both into the request before a handler sees it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

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
