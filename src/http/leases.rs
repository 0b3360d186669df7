//! Leases for workers outside: taken, renewed, ended, over HTTP. One operation a file.

pub mod complete;
pub mod fail;
pub mod file;
pub mod heartbeat;
pub mod lease;
pub mod offer;
pub mod raw_members;
pub mod view;
pub mod wanted;

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde_json::Value;

use super::answer;
use super::api::Api;
use super::body::read_limited;
use super::code::Code;
use super::media_type;
use super::problem::Problem;
use super::query;
use super::submission::members::Members;
use crate::domain::json;
use crate::domain::lease_id::LeaseId;
use crate::domain::retry::RetryPolicy;
use crate::domain::task::{FencingToken, Task};
use crate::store::{Held, LeaseRequest};

/// Levels of arrays and objects that bodies without a result may have.
const DEPTH_MAX: usize = 8;

/// A lease as it stands in a path. What can be none of ours is unknown.
fn lease_id(text: &str) -> Result<LeaseId, Problem> {
    LeaseId::parse(text).ok_or_else(Problem::not_found)
}

/// What the holder of `id` may do is decided by the token that it sends.
fn held(id: LeaseId, token: FencingToken, lease: Duration) -> Held {
    Held {
        user: id.user,
        task: id.task,
        token,
        lease,
    }
}

fn lost() -> Problem {
    Problem::new(
        Code::LeaseLost,
        "The lease has ended, or its token is stale; nothing was changed.",
    )
}

/// The members of a body that is small.
async fn members(
    api: &Api,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Members, Problem> {
    query::expect_none(query)?;
    media_type::require_json(headers, &body)?;
    let text = read_limited(body, api.limits.json_body_bytes_max).await?;
    let invalid = |error: json::JsonError| Problem::new(Code::InvalidJson, error.to_string());
    match json::parse(&text, DEPTH_MAX).map_err(invalid)? {
        Value::Object(members) => Ok(Members::new("", members)),
        _ => Err(Problem::invalid("", "must be an object")),
    }
}

const TOKEN_EXPECTED: &str = "must be the integer that the lease was given out with";

fn token(members: &mut Members) -> Option<FencingToken> {
    if members.peek("fencing_token").is_none() {
        members.refuse("fencing_token", "is required");
    }
    members.read("fencing_token", TOKEN_EXPECTED, |value| {
        value.as_u64().map(FencingToken)
    })
}

/// How long a lease of this task lasts from now on; of a type that is not known any more, as usual.
fn lease_of(api: &Api, task: &Task) -> Duration {
    let known = api.types.get(&task.task_type);
    known.map_or(LeaseRequest::LEASE_DEFAULT, |known| known.lease)
}

/// When a failed attempt is tried again.
fn backoff(api: &Api, task: &Task) -> Duration {
    let chance = fastrand::f64();
    match api.types.get(&task.task_type) {
        Some(known) => known.retry.backoff(task.attempt, task.max_attempts, chance),
        None => RetryPolicy::MAX_DELAY.min(Duration::from_secs(60)),
    }
}

/// The end of an attempt is on record: how durably, the answer says.
fn acknowledged(api: &Api, body: Vec<u8>) -> Response {
    let mut response = answer::json(body);
    let fields = response.headers_mut();
    let durability = HeaderValue::from_static(api.store.durability().name());
    fields.insert(answer::DURABILITY, durability);
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
