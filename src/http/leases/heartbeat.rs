//! `POST /v1/leases/{id}/heartbeat`

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::view::HeartbeatView;
use super::{backoff, held, lease_id, lease_of, lost, members, token};
use crate::domain::task::{Progress, Task, TaskError};
use crate::http::api::Api;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::submission::members::Members;
use crate::http::{answer, clock, views};
use crate::store::{Fenced, Found, Held, LeaseRequest};

/// Characters of a progress message that are kept.
const MESSAGE_LENGTH_MAX: usize = 500;

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HeartbeatRequest)]
pub struct HeartbeatDocument {
    fencing_token: u64,
    /// How far the attempt has come; shown in the task.
    progress: Option<ProgressDocument>,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProgressReport)]
pub struct ProgressDocument {
    /// Default 0.
    #[schema(nullable = false)]
    done: Option<f64>,
    total: Option<f64>,
    /// Cut after 500 characters.
    message: Option<String>,
}

/// Renew a lease, and report progress
///
/// In good time: a third of the lease is a good pace. An attempt that has taken longer than the type's
/// `timeout_seconds` ends here, and is tried again.
#[utoipa::path(
    post,
    path = "/v1/leases/{id}/heartbeat",
    tag = "leases",
    params(("id" = String, Path, description = "The lease's id")),
    request_body(content = HeartbeatDocument, content_type = "application/json"),
    responses(
        (status = 200, description = "Renewed", body = HeartbeatView),
        (status = 400, description = "`invalid-json`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`: not the id of a lease", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`lease-lost`: stop working on this attempt", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn renew_lease(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = lease_id(&id)?;
    let mut members = members(&api, query.as_deref(), &headers, body).await?;
    let token = token(&mut members);
    let progress = progress(&mut members);
    let token = match (token, members.violations(&[])) {
        (Some(token), none) if none.is_empty() => token,
        (_, violations) => return Err(Problem::violations(violations)),
    };
    let mut held = held(id, token, LeaseRequest::LEASE_DEFAULT);
    if let Found::Here(task) = api.store.get(&held.user, &held.task).await? {
        held.lease = lease_of(&api, &task);
        if is_overdue(&api, &task) {
            return Err(timed_out(&api, held, &task).await?);
        }
    }
    let Fenced::Recorded(extension) = api.store.extend(held, progress).await? else {
        return Err(lost());
    };
    let mut response = answer::json(views::to_bytes(&HeartbeatView::of(&extension))?);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

/// Whether the attempt has taken longer than one may.
fn is_overdue(api: &Api, task: &Task) -> bool {
    match (api.types.get(&task.task_type), task.started_at) {
        (Some(known), Some(started_at)) => clock::now().since(started_at) > known.timeout,
        _ => false,
    }
}

async fn timed_out(api: &Api, held: Held, task: &Task) -> Result<Problem, Problem> {
    let seconds = api
        .types
        .get(&task.task_type)
        .map_or(0.0, |known| known.timeout.as_secs_f64());
    let message = format!("the attempt took longer than {seconds} s");
    let error = TaskError {
        code: "timeout".to_owned(),
        message: message.clone(),
        attempt: task.attempt,
        permanent: false,
    };
    let retry_in = backoff(api, task);
    Ok(match api.store.fail(held, error, Some(retry_in)).await? {
        Fenced::Recorded(_) => {
            Problem::new(Code::LeaseLost, format!("The lease has ended: {message}."))
        }
        Fenced::Lost => lost(),
    })
}

fn progress(members: &mut Members) -> Option<Progress> {
    if members.peek("progress").is_some_and(Value::is_null) {
        members.take("progress");
    }
    let expected = "must be an object of done, total and message";
    members.read("progress", expected, |value| match value {
        Value::Object(members) => read_progress(members),
        _ => None,
    })
}

fn read_progress(mut members: Map<String, Value>) -> Option<Progress> {
    let mut number = |name: &str| match members.remove(name) {
        None | Some(Value::Null) => Some(None),
        Some(value) => value.as_f64().map(Some),
    };
    let (done, total) = (number("done")?, number("total")?);
    let message = match members.remove("message") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.chars().take(MESSAGE_LENGTH_MAX).collect()),
        Some(_) => return None,
    };
    members.is_empty().then_some(Progress {
        done: done.unwrap_or(0.0),
        total,
        message,
    })
}
