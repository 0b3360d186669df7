//! `POST /v1/tasks/{id}/redrive`

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::{expect_no_members, missing, task_id};
use crate::http::answer;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::store::Redriven;
use crate::task_view::TaskView;

/// Run a failed or cancelled task again
///
/// Attempts grow on, the budget starts anew. Repeating it while the task is unfinished changes nothing.
#[utoipa::path(
    post,
    path = "/v1/tasks/{id}/redrive",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's id")),
    responses(
        (status = 202, description = "The task, unfinished again", body = TaskView, headers(
            ("Location" = String, description = "The task"),
            ("Retry-After" = u64, description = "Seconds until it is worth while to ask"),
        )),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`task-ended`: it has succeeded. `duplicate-submission`: another task answers for its content", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn redrive_task(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    expect_no_members(&api, &headers, body, &[]).await?;
    match api.store.redrive(&caller.0.user, &id).await? {
        Redriven::Done(task) => {
            let view = TaskView::of(&api, &task).to_bytes()?;
            Ok(answer::acknowledgement(&api, &task, view))
        }
        Redriven::Blocked(other) => Err(answer::duplicate(&api, &other)),
        Redriven::Succeeded(task) => Err(Problem::new(
            Code::TaskEnded,
            "The task has succeeded; only failed and cancelled tasks run again.",
        )
        .with("task_id", task.id.as_str())),
        Redriven::Unknown(why) => Err(missing(why)),
    }
}
