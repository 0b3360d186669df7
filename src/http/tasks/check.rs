//! `POST /v1/tasks/check`

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::submit::read_admission;
use crate::domain::task::Task;
use crate::domain::timestamp::Timestamp;
use crate::http::answer;
use crate::http::api::Api;
use crate::http::head::SubmissionHead;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::submission::document::SubmissionDocument;
use crate::http::submission::file_reference;
use crate::http::views;
use crate::store::{Checked, MatchedBy};
use crate::task_view::{MatchedByName, TaskView};

/// What a submission would meet.
#[derive(Serialize, ToSchema)]
#[schema(as = Check)]
pub struct CheckView<'a> {
    verdict: Verdict,
    #[schema(value_type = Option<MatchedByName>)]
    matched_by: Option<MatchedBy>,
    /// The task that would answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    task: Option<TaskView<'a>>,
    /// The fields that are not as the key's first submission had them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    differs: Option<Vec<String>>,
    /// Until when what matched is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, format = DateTime)]
    expires_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Verdict)]
enum Verdict {
    New,
    Duplicate,
    KeyReused,
}

/// Dry run of a submission
///
/// Says what `POST /v1/tasks` would do with the same body and key. Changes nothing.
#[utoipa::path(
    post,
    path = "/v1/tasks/check",
    tag = "tasks",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The key that the submission would carry"),
    ),
    request_body(content = SubmissionDocument, content_type = "application/json"),
    responses(
        (status = 200, description = "The verdict", body = CheckView),
        (status = 400, description = "As for the submission", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`: the key names a deleted task", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "`payload-too-large`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed` `unknown-task-type` `file-unknown` `callback-url-rejected`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn check_submission(
    State(api): State<Api>,
    head: SubmissionHead,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let admission = read_admission(&api, &head, &headers, body).await?;
    match api.store.check(admission).await? {
        Checked::New => verdict(Verdict::New, CheckView::new),
        Checked::Duplicate {
            task,
            matched_by,
            expires_at,
        } => verdict(Verdict::Duplicate, |verdict| CheckView {
            matched_by: Some(matched_by),
            task: Some(existing(&api, &task, matched_by, expires_at)),
            expires_at,
            ..CheckView::new(verdict)
        }),
        Checked::KeyReused { differs } => verdict(Verdict::KeyReused, |verdict| CheckView {
            matched_by: Some(MatchedBy::IdempotencyKey),
            differs: Some(differs),
            ..CheckView::new(verdict)
        }),
        Checked::KeyForgotten => Err(answer::forgotten()),
        Checked::FileUnknown(sha256) => Err(file_reference::unknown(&sha256)),
    }
}

impl CheckView<'_> {
    fn new(verdict: Verdict) -> Self {
        CheckView {
            verdict,
            matched_by: None,
            task: None,
            differs: None,
            expires_at: None,
        }
    }
}

fn existing<'a>(
    api: &'a Api,
    task: &'a Task,
    matched_by: MatchedBy,
    expires_at: Option<Timestamp>,
) -> TaskView<'a> {
    TaskView::of(api, task).matched(Some(matched_by), expires_at, &[])
}

fn verdict<'a>(
    verdict: Verdict,
    view: impl FnOnce(Verdict) -> CheckView<'a>,
) -> Result<Response, Problem> {
    let mut response = answer::json(views::to_bytes(&view(verdict))?);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}
