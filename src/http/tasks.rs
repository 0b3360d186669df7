//! What can be done with tasks, one operation a file.

pub mod batch;
pub mod cancel;
pub mod check;
pub mod duplicates;
pub mod forget;
pub mod get;
pub mod list;
pub mod redrive;
pub mod redrive_many;
pub mod result;
pub mod submit;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body::Body as _;
use serde_json::{Map, Value};

use super::api::Api;
use super::body::read_limited;
use super::caller::Caller;
use super::code::Code;
use super::problem::Problem;
use super::submission::members::Members;
use super::{answer, media_type};
use crate::domain::json;
use crate::domain::task::{Task, TaskId};
use crate::store::{Found, Missing};

/// An id as it stands in a path. What can be none of ours is unknown.
fn task_id(text: &str) -> Result<TaskId, Problem> {
    TaskId::parse(text).ok_or_else(Problem::not_found)
}

fn missing(why: Missing) -> Problem {
    match why {
        Missing::Unknown => Problem::not_found(),
        Missing::Forgotten => answer::forgotten(),
    }
}

pub async fn find(api: &Api, caller: &Caller, id: &str) -> Result<Task, Problem> {
    match api.store.get(&caller.0.user, &task_id(id)?).await? {
        Found::Here(task) => Ok(task),
        Found::Missing(why) => Err(missing(why)),
    }
}

/// The body of an operation that needs none: empty, or an object without members. `planned` are those
/// that it will know one day.
pub async fn expect_no_members(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    planned: &[&str],
) -> Result<(), Problem> {
    let members = optional_members(api, headers, body).await?;
    match Members::new("", members).violations(planned) {
        none if none.is_empty() => Ok(()),
        violations => Err(Problem::violations(violations)),
    }
}

/// The members of a body that may be empty.
pub async fn optional_members(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<Map<String, Value>, Problem> {
    // A client that sends an empty object may have named no type for it; one that names another is wrong.
    if !body.is_end_stream() && headers.contains_key(header::CONTENT_TYPE) {
        media_type::require_json(headers, &body)?;
    }
    let text = read_limited(body, api.limits.json_body_bytes_max).await?;
    if text.is_empty() {
        return Ok(Map::new());
    }
    let invalid = |error: json::JsonError| Problem::new(Code::InvalidJson, error.to_string());
    match json::parse(&text, json::PARAMS_DEPTH_MAX).map_err(invalid)? {
        Value::Object(members) => Ok(members),
        _ => Err(Problem::invalid("", "must be an object")),
    }
}
