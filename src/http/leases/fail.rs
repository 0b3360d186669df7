//! `POST /v1/leases/{id}/fail`

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::view::EndView;
use super::{acknowledged, backoff, held, lease_id, lost, members, token};
use crate::domain::task::{FencingToken, TaskError};
use crate::http::api::Api;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::submission::members::Members;
use crate::http::views;
use crate::store::{Fenced, Found, LeaseRequest};

const CODE_LENGTH_MAX: usize = 64;
const CODE_DEFAULT: &str = "worker-failed";
/// Characters of an error's message that are kept.
const MESSAGE_LENGTH_MAX: usize = 4_000;

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Failure)]
pub struct FailureDocument {
    fencing_token: u64,
    error: FailureReason,
    /// Whether another attempt could not help. Default false: it is tried again while attempts are left.
    #[schema(nullable = false)]
    permanent: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailureReason {
    /// Shown in the task; cut after 4,000 characters.
    message: String,
    /// Lower-case words with dashes, at most 64 characters. Default `worker-failed`.
    #[schema(nullable = false, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$")]
    code: Option<String>,
}

/// End an attempt that did not succeed, or confirm that a cancelled one has stopped
#[utoipa::path(
    post,
    path = "/v1/leases/{id}/fail",
    tag = "leases",
    params(("id" = String, Path, description = "The lease's id")),
    request_body(content = FailureDocument, content_type = "application/json"),
    responses(
        (status = 200, description = "On record: the task is `retrying`, `failed` or `cancelled`", body = EndView),
        (status = 400, description = "`invalid-json`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`: not the id of a lease", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`lease-lost`: nothing was changed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn fail_lease(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = lease_id(&id)?;
    let mut members = members(&api, query.as_deref(), &headers, body).await?;
    let (token, failure) = failure(&mut members);
    let (token, failure) = match (token, failure, members.violations(&[])) {
        (Some(token), Some(failure), none) if none.is_empty() => (token, failure),
        (_, _, violations) => return Err(Problem::violations(violations)),
    };
    let held = held(id, token, LeaseRequest::LEASE_DEFAULT);
    let of = api.clone();
    // It is on record, whether its worker still listens or not.
    let recorded = api.unfinished.spawn(async move {
        let Found::Here(task) = of.store.get(&held.user, &held.task).await? else {
            return Err(lost());
        };
        let error = TaskError {
            attempt: task.attempt,
            ..failure
        };
        let retry_in = (!error.permanent).then(|| backoff(&of, &task));
        match of.store.fail(held, error, retry_in).await? {
            Fenced::Recorded(task) => Ok(task),
            Fenced::Lost => Err(lost()),
        }
    });
    let task = recorded
        .await
        .map_err(|error| Problem::new(Code::Internal, "").caused_by(error))??;
    Ok(acknowledged(&api, views::to_bytes(&EndView::of(&task))?))
}

/// Of an attempt whose number is yet to be told.
fn failure(members: &mut Members) -> (Option<FencingToken>, Option<TaskError>) {
    let token = token(members);
    let permanent = members.read("permanent", "must be true or false", |value| {
        value.as_bool()
    });
    let error = match members.take("error") {
        Some(Value::Object(error)) => reason(members, error),
        Some(_) => {
            members.refuse("error", "must be an object");
            None
        }
        None => {
            members.refuse("error", "is required");
            None
        }
    };
    let permanent = permanent.unwrap_or(false);
    (token, error.map(|error| TaskError { permanent, ..error }))
}

fn reason(members: &mut Members, error: Map<String, Value>) -> Option<TaskError> {
    let mut error = Members::new("/error", error);
    if error.peek("message").is_none() {
        error.refuse("message", "is required");
    }
    let message = error.text("message");
    let expected = "must be lower-case words with dashes, at most 64 characters";
    let code = error.read("code", expected, |value| match value {
        Value::String(code) => is_code(&code).then_some(code),
        _ => None,
    });
    members.refuse_all(error.violations(&[]));
    Some(TaskError {
        code: code.unwrap_or_else(|| CODE_DEFAULT.to_owned()),
        message: message?.chars().take(MESSAGE_LENGTH_MAX).collect(),
        attempt: 0,
        permanent: false,
    })
}

fn is_code(text: &str) -> bool {
    let is_word = |word: &str| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !word.is_empty() && word.bytes().all(legal)
    };
    text.len() <= CODE_LENGTH_MAX && text.split('-').all(is_word)
}
