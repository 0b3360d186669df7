//! `GET /v1/tasks/{id}/duplicates`

use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::{find, missing};
use crate::http::answer;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::views;
use crate::store::{Found, LedgerEntry};
use crate::task_view::MatchedByName;

/// The duplicates of a task that were suppressed, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Ledger)]
pub struct LedgerView {
    /// The newest 100.
    #[schema(value_type = Vec<LedgerEntryDocument>)]
    items: Vec<LedgerEntry>,
    /// All of them, those no longer listed included.
    count: u64,
    #[schema(value_type = Option<String>)]
    next_cursor: (),
}

/// One suppressed duplicate.
#[derive(Serialize, ToSchema)]
#[schema(as = LedgerEntry)]
pub struct LedgerEntryDocument {
    #[schema(format = DateTime)]
    at: String,
    matched_by: MatchedByName,
    #[schema(nullable = false)]
    key: Option<String>,
    request_id: String,
    bytes_saved: u64,
    seconds_saved: f64,
}

/// Suppressed duplicates of a task
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/duplicates",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The ledger", body = LedgerView),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn list_duplicates(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let task = find(&api, &caller, &id).await?;
    let items = match api.store.ledger(&task.user, &task.id).await? {
        Found::Here(items) => items,
        Found::Missing(why) => return Err(missing(why)),
    };
    let view = LedgerView {
        // Both were looked up in turn, and one more may have come between.
        count: task.duplicates.max(items.len() as u64),
        items,
        next_cursor: (),
    };
    let mut response = answer::json(views::to_bytes(&view)?);
    let private = HeaderValue::from_static("private, no-cache");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, private);
    Ok(response)
}
