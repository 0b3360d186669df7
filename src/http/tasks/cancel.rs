//! `POST /v1/tasks/{id}/cancel`

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{missing, optional_members, task_id};
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::task::{State as TaskState, Task, TaskId};
use crate::http::answer;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::submission::members::Members;
use crate::store::{Cancelled, Withdrawn};
use crate::task_view::TaskView;

/// How long the answer waits for a running attempt to confirm that it has stopped.
const CONFIRMATION_MAX: Duration = Duration::from_secs(2);
const CONFIRMATION_POLL: Duration = Duration::from_millis(250);

/// Who wants a task no more.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Cancellation)]
pub struct CancelDocument {
    /// As the submission had it in `Idempotency-Key`. Absent: it is stopped for all.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    key: Option<String>,
}

/// Cancel a task
///
/// Stops it for all who submitted it. A running attempt is told, and its late result refused. Cancelling
/// it again changes nothing. With a key in the body, only the interest of that key ends, for good: its submission sent
/// again still gets the task, and wants it no more. Submissions without a key, and a redrive, count as one interest
/// that ends only with the task. When no interest is left, the task is cancelled; until then the answer is the task as
/// it is.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/cancel",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's id")),
    request_body(content = Option<CancelDocument>, content_type = "application/json"),
    responses(
        (status = 200, description = "The cancelled task", body = TaskView),
        (status = 202, description = "The task, which others still want", body = TaskView),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`task-ended`: succeeded or failed before", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`: the body has other members, or its key names no submission of this task", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn cancel_task(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (user, id) = (caller.0.user, task_id(&id)?);
    let mut members = Members::new("", optional_members(&api, &headers, body).await?);
    let key = members.read("key", "must be an idempotency key", |value| {
        IdempotencyKey::parse(value.as_str()?.as_bytes()).ok()
    });
    let violations = members.violations(&[]);
    if !violations.is_empty() {
        return Err(Problem::violations(violations));
    }
    let task = cancel(&api, &user, &id, key.as_ref()).await?;
    let view = TaskView::of(&api, &task).to_bytes()?;
    Ok(answer::acknowledgement(&api, &task, view))
}

/// Gives the task as it is when somebody else wants it.
async fn cancel(
    api: &Api,
    user: &UserId,
    id: &TaskId,
    key: Option<&IdempotencyKey>,
) -> Result<Task, Problem> {
    let mut watch = api.store.watch(id);
    let deadline = Instant::now() + CONFIRMATION_MAX;
    loop {
        // Cancelling twice is cancelling once, and says whether the attempt has stopped by now.
        let cancelled = match key {
            None => api.store.cancel(user, id).await?,
            Some(key) => match api.store.withdraw(user, id, key).await? {
                Withdrawn::Cancelled(cancelled) => cancelled,
                Withdrawn::Wanted(task) => return Ok(*task),
                Withdrawn::KeyUnknown => {
                    let detail = "names no submission of this task";
                    return Err(Problem::invalid("/key", detail));
                }
            },
        };
        match cancelled {
            Cancelled::Done { task, stopping } if !stopping || Instant::now() >= deadline => {
                return Ok(*task);
            }
            Cancelled::Done { .. } => {}
            Cancelled::Ended(task) if task.state == TaskState::Cancelled => return Ok(*task),
            Cancelled::Ended(task) => return Err(ended(&task)),
            Cancelled::Unknown(why) => return Err(missing(why)),
        }
        let poll = deadline.min(Instant::now() + CONFIRMATION_POLL);
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep_until(poll) => {}
        }
    }
}

fn ended(task: &Task) -> Problem {
    let detail = format!("The task is {} and stays so.", task.state.name());
    Problem::new(Code::TaskEnded, detail).with("task_id", task.id.as_str())
}
