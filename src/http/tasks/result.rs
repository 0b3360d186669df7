//! `GET /v1/tasks/{id}/result`

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde_json::json;

use super::find;
use crate::domain::file::BlobName;
use crate::domain::task::{Outcome, State as TaskState, Task};
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::code::Code;
use crate::http::files::download;
use crate::http::openapi::ProblemDocument;
use crate::http::prefer::{PREFERENCE_APPLIED, Prefer};
use crate::http::problem::Problem;
use crate::http::{answer, wait};
use crate::task_view::TaskView;

/// The result alone
///
/// The JSON that the task gave, byte for byte.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/result",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The task's id"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 50 seconds"),
    ),
    responses(
        (status = 200, description = "The result", content_type = "application/json", body = serde_json::Value),
        (status = 202, description = "The task, which has not ended yet", body = TaskView, headers(
            ("Location" = String, description = "The task"),
            ("Retry-After" = u64, description = "Seconds until it is worth while to ask again"),
        )),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`task-failed`: failed or cancelled; `error` says why", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`result-expired` `task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_result(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task = find(&api, &caller, &id).await?;
    let prefer = Prefer::of(&headers);
    let waited = wait::for_end(&api, task, prefer.wait()).await;
    let mut response = result_of(&api, &waited.task).await?;
    let fields = response.headers_mut();
    let private = HeaderValue::from_static("private, no-cache");
    fields.insert(header::CACHE_CONTROL, private);
    let nosniff = HeaderValue::from_static("nosniff");
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    if let Some(applied) = prefer.applied(waited.granted) {
        fields.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

async fn result_of(api: &Api, task: &Task) -> Result<Response, Problem> {
    match task.state {
        TaskState::Succeeded => match &task.outcome {
            Some(Outcome::Inline(json)) => Ok(answer::json(json.get().as_bytes().to_vec())),
            Some(Outcome::Blob { name, .. }) => stored(api, name).await,
            Some(Outcome::Expired) | None => Err(expired()),
        },
        TaskState::Failed | TaskState::Cancelled => Err(Problem::new(
            Code::TaskFailed,
            format!("The task is {} and has no result.", task.state.name()),
        )
        .with("task_id", task.id.as_str())
        .with("error", json!(task.error))),
        TaskState::Scheduled | TaskState::Queued | TaskState::Running | TaskState::Retrying => {
            let view = TaskView::of(api, task).to_bytes()?;
            Ok(answer::of_task(api, task, view))
        }
    }
}

async fn stored(api: &Api, name: &BlobName) -> Result<Response, Problem> {
    let blob = match api.blobs.open(name).await {
        Ok(blob) => blob,
        Err(crate::blobs::BlobError::Missing) => return Err(expired()),
        Err(error) => return Err(error.into()),
    };
    let size = HeaderValue::from(blob.size);
    let mut response = Response::new(Body::from_stream(download::pieces(blob)));
    let fields = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    fields.insert(header::CONTENT_TYPE, json);
    fields.insert(header::CONTENT_LENGTH, size);
    Ok(response)
}

fn expired() -> Problem {
    Problem::new(
        Code::ResultExpired,
        "The result of this task is no longer kept.",
    )
}
