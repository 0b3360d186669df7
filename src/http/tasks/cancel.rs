//! `POST /v1/tasks/{id}/cancel`

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::time::Instant;

use super::{expect_no_members, missing, task_id};
use crate::domain::principal::UserId;
use crate::domain::task::{State as TaskState, Task, TaskId};
use crate::http::answer;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::store::Cancelled;
use crate::task_view::TaskView;

/// How long the answer waits for a running attempt to confirm that it has stopped.
const CONFIRMATION_MAX: Duration = Duration::from_secs(2);
const CONFIRMATION_POLL: Duration = Duration::from_millis(250);

/// Cancel a task
///
/// Stops it for all who submitted it. A running attempt is told, and its late result refused. Cancelling
/// it again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/cancel",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The cancelled task", body = TaskView),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`task-ended`: succeeded or failed before", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`: the body must be empty or `{}`", body = ProblemDocument, content_type = "application/problem+json"),
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
    expect_no_members(&api, &headers, body, &["key"]).await?;
    let task = cancel(&api, &user, &id).await?;
    let view = TaskView::of(&api, &task).to_bytes()?;
    Ok(answer::acknowledgement(&api, &task, view))
}

async fn cancel(api: &Api, user: &UserId, id: &TaskId) -> Result<Task, Problem> {
    let mut watch = api.store.watch(id);
    let deadline = Instant::now() + CONFIRMATION_MAX;
    loop {
        // Cancelling twice is cancelling once, and says whether the attempt has stopped by now.
        match api.store.cancel(user, id).await? {
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
