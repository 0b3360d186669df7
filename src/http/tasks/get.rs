//! `GET /v1/tasks/{id}`

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::find;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::etag::ETag;
use crate::http::openapi::ProblemDocument;
use crate::http::prefer::{PREFERENCE_APPLIED, Prefer};
use crate::http::problem::Problem;
use crate::http::{answer, clock, retry_after, wait};
use crate::task_view::TaskView;

/// A task
///
/// `Prefer: wait=N` holds the answer until the task has ended or N seconds have passed.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The task's id"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 50 seconds"),
        ("If-None-Match" = Option<String>, Header, description = "ETags that are known already"),
    ),
    responses(
        (status = 200, description = "The task", body = TaskView, headers(
            ("ETag" = String, description = "Changes with the task"),
            ("Retry-After" = u64, description = "While unfinished: seconds until it is worth while to ask again"),
            ("Preference-Applied" = String, description = "Such as `wait=10`"),
        )),
        (status = 304, description = "Unchanged"),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_task(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task = find(&api, &caller, &id).await?;
    let prefer = Prefer::of(&headers);
    let waited = wait::for_end(&api, task, prefer.wait()).await;
    let task = &waited.task;
    let body = TaskView::of(&api, task).to_bytes()?;
    let etag = ETag::of_body(&body);
    let mut response = match etag.is_known_by(&headers) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => answer::json(body),
    };
    let fields = response.headers_mut();
    fields.insert(header::ETAG, etag.value());
    let private = HeaderValue::from_static("private, no-cache");
    fields.insert(header::CACHE_CONTROL, private);
    if let Some(seconds) = retry_after::of(task, clock::now()) {
        fields.insert(header::RETRY_AFTER, seconds);
    }
    if let Some(applied) = prefer.applied(waited.granted) {
        fields.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}
