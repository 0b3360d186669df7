//! `POST /v1/task-types/{type}/pause` and `/resume`: stop and go, for all replicas.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::api::Api;
use super::openapi::ProblemDocument;
use super::problem::Problem;
use super::task_types::TypeView;
use super::tasks::expect_no_members;
use super::{answer, query, views};

/// Pause a task type
///
/// Its tasks are taken as ever, and wait; attempts that run go on. Every replica obeys within a second, and it stays so
/// over restarts. Pausing twice is pausing once.
#[utoipa::path(
    post,
    path = "/v1/task-types/{type}/pause",
    tag = "operation",
    params(("type" = String, Path, description = "The name of the type")),
    responses(
        (status = 200, description = "The type, paused", body = TypeView),
        (status = 404, description = "`not-found`: there is no such type", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`: the body must be empty or `{}`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn pause_task_type(
    State(api): State<Api>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    set(&api, &name, query.as_deref(), &headers, body, true).await
}

/// Resume a task type
#[utoipa::path(
    post,
    path = "/v1/task-types/{type}/resume",
    tag = "operation",
    params(("type" = String, Path, description = "The name of the type")),
    responses(
        (status = 200, description = "The type, not paused", body = TypeView),
        (status = 404, description = "`not-found`: there is no such type", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`: the body must be empty or `{}`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn resume_task_type(
    State(api): State<Api>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    set(&api, &name, query.as_deref(), &headers, body, false).await
}

async fn set(
    api: &Api,
    name: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
    paused: bool,
) -> Result<Response, Problem> {
    let task_type = api.types.get(name).ok_or_else(Problem::not_found)?;
    query::expect_none(query)?;
    expect_no_members(api, headers, body, &[]).await?;
    match paused {
        true => api.store.pause(name).await?,
        false => api.store.resume(name).await?,
    }
    tracing::info!(task_type = name, paused, "stop and go");
    let view = TypeView::of(&task_type, paused);
    Ok(answer::json(views::to_bytes(&view)?))
}
