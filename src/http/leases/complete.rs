//! `POST /v1/leases/{id}/complete`

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::raw_members::RawMembers;
use super::view::EndView;
use super::{TOKEN_EXPECTED, acknowledged, held, lease_id, lost};
use crate::domain::file::BlobName;
use crate::domain::json;
use crate::domain::schema::Violation;
use crate::domain::task::{FencingToken, Outcome, Task};
use crate::http::api::Api;
use crate::http::body::read_limited;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::{media_type, query, views};
use crate::results::{self, Refused};
use crate::store::{Fenced, LeaseRequest, TaskResult};

/// What a body may have besides the result.
const REST_BYTES_MAX: usize = 4096;

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Completion)]
pub struct CompletionDocument {
    fencing_token: u64,
    /// Any JSON; kept byte for byte. Default null.
    result: Option<Value>,
}

/// End an attempt with its result
///
/// Repeating it with the same token changes nothing, and is answered in the same way.
#[utoipa::path(
    post,
    path = "/v1/leases/{id}/complete",
    tag = "leases",
    params(("id" = String, Path, description = "The lease's id")),
    request_body(content = CompletionDocument, content_type = "application/json"),
    responses(
        (status = 200, description = "On record", body = EndView),
        (status = 400, description = "`invalid-json`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "`not-found`: not the id of a lease", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`lease-lost`: nothing was changed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "`payload-too-large`: the result is above the limit", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn complete_lease(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = lease_id(&id)?;
    query::expect_none(query.as_deref())?;
    media_type::require_json(&headers, &body)?;
    let bytes_max = api.limits.result_bytes_max.saturating_add(REST_BYTES_MAX);
    let text = read_limited(body, bytes_max).await?;
    let (token, result) = completion(&text)?;
    let held = held(id, token, LeaseRequest::LEASE_DEFAULT);
    // It is on record, whether its worker still listens or not.
    let of = api.clone();
    let recorded = api.unfinished.spawn(async move {
        let result = results::keep(&*of.blobs, &of.limits, result).await;
        let result = result.map_err(refused)?;
        let recorded = of.store.complete(held, result.clone()).await?;
        let task = match recorded {
            Fenced::Recorded(task) => Some(task),
            Fenced::Lost => None,
        };
        if let Some(name) = superfluous(result, task.as_ref()) {
            results::delete(&*of.blobs, &[name]).await;
        }
        task.ok_or_else(lost)
    });
    let task = recorded
        .await
        .map_err(|error| Problem::new(Code::Internal, "").caused_by(error))??;
    Ok(acknowledged(&api, views::to_bytes(&EndView::of(&task))?))
}

/// The copy that was not taken: of a lost lease, or of a repeat.
fn superfluous(result: TaskResult, task: Option<&Task>) -> Option<BlobName> {
    let TaskResult::Blob { name, .. } = result else {
        return None;
    };
    let taken = task.and_then(|task| task.outcome.as_ref());
    match taken {
        Some(Outcome::Blob { name: taken, .. }) if *taken == name => None,
        _ => Some(name),
    }
}

fn completion(text: &Bytes) -> Result<(FencingToken, Box<RawValue>), Problem> {
    let mut members = RawMembers::read(text)?;
    let mut violations = Vec::new();
    let mut refuse = |name: &str, detail: &str| {
        violations.push(Violation {
            pointer: json::pointer("", name),
            detail: detail.to_owned(),
        });
    };
    let token = match members.take("fencing_token") {
        None => {
            refuse("fencing_token", "is required");
            None
        }
        Some(raw) => {
            let token = serde_json::from_str(raw.get()).ok();
            if token.is_none() {
                refuse("fencing_token", TOKEN_EXPECTED);
            }
            token
        }
    };
    let result = members.take("result").unwrap_or(RawValue::NULL).to_owned();
    for name in members.rest() {
        let shown: String = name.chars().take(64).collect();
        refuse(&shown, "is not a known member");
    }
    match token {
        Some(token) if violations.is_empty() => Ok((FencingToken(token), result)),
        _ => Err(Problem::violations(violations)),
    }
}

fn refused(why: Refused) -> Problem {
    match why {
        Refused::TooLarge => Problem::new(
            Code::PayloadTooLarge,
            "The result is larger than is allowed; the lease is still held.",
        ),
        Refused::NotStored(error) => error.into(),
    }
}
