//! `POST /v1/tasks/redrive`

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::list::tag;
use crate::domain::json::{self, PARAMS_DEPTH_MAX};
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::http::api::Api;
use crate::http::body::read_limited;
use crate::http::caller::Caller;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::submission::members::Members;
use crate::http::views;
use crate::http::{answer, media_type, query};
use crate::store::RedriveFilter;

const LIMIT_DEFAULT: u64 = 1_000;
const LIMIT_MAX: u64 = 10_000;

/// Which failed tasks to run again, oldest first.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RedriveFilter)]
pub struct FilterDocument {
    #[serde(rename = "type")]
    #[schema(nullable = false)]
    task_type: Option<String>,
    /// `name`, or `name:value`.
    #[schema(nullable = false)]
    tag: Option<String>,
    /// Tasks that ended before this.
    #[schema(nullable = false, format = DateTime)]
    before: Option<String>,
    /// Default 1,000.
    #[schema(nullable = false, minimum = 1, maximum = 10_000)]
    limit: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RedriveCount)]
pub struct CountView {
    /// Those that another task blocks are passed over, and not counted.
    redriven: u64,
}

/// Run failed tasks again, in bulk
#[utoipa::path(
    post,
    path = "/v1/tasks/redrive",
    tag = "tasks",
    request_body(content = FilterDocument, content_type = "application/json"),
    responses(
        (status = 200, description = "How many run again", body = CountView),
        (status = 400, description = "`invalid-json`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn redrive_tasks(
    State(api): State<Api>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    media_type::require_json(&headers, &body)?;
    let text = read_limited(body, api.limits.json_body_bytes_max).await?;
    let filter = filter(&text)?;
    let redriven = redrive(&api, &caller.0.user, filter).await?;
    Ok(answer::json(views::to_bytes(&CountView { redriven })?))
}

/// One step of the store is bounded, so that this takes as many as there is something left to do.
async fn redrive(api: &Api, user: &UserId, mut filter: RedriveFilter) -> Result<u64, Problem> {
    let mut redriven = 0;
    loop {
        let step = api.store.redrive_many(user, filter.clone()).await?;
        redriven += step.redriven;
        let taken = usize::try_from(step.redriven).unwrap_or(usize::MAX);
        filter.limit = filter.limit.saturating_sub(taken);
        filter.after = step.next;
        if filter.limit == 0 || filter.after.is_none() {
            return Ok(redriven);
        }
    }
}

fn filter(text: &[u8]) -> Result<RedriveFilter, Problem> {
    let invalid = |error: json::JsonError| Problem::new(Code::InvalidJson, error.to_string());
    let Value::Object(members) = json::parse(text, PARAMS_DEPTH_MAX).map_err(invalid)? else {
        return Err(Problem::invalid("", "must be an object"));
    };
    let mut members = Members::new("", members);
    let limit = members.read("limit", "must be an integer from 1 to 10000", |value| {
        value.as_u64().filter(|n| (1..=LIMIT_MAX).contains(n))
    });
    let filter = RedriveFilter {
        task_type: members.text("type"),
        tag: members.read("tag", "must be name or name:value", |value| {
            tag(value.as_str()?)
        }),
        before: members.read("before", "must be an RFC 3339 time", |value| {
            Timestamp::parse_rfc3339(value.as_str()?)
        }),
        limit: usize::try_from(limit.unwrap_or(LIMIT_DEFAULT)).unwrap_or(usize::MAX),
        after: None,
    };
    match members.violations(&[]) {
        none if none.is_empty() => Ok(filter),
        violations => Err(Problem::violations(violations)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_strictly() {
        let read = filter(br#"{"type": "echo", "tag": "a:b", "before": "2026-01-01T00:00:00Z"}"#);
        let read = read.unwrap();
        assert_eq!(read.task_type.as_deref(), Some("echo"));
        assert_eq!(read.tag, Some(("a".into(), Some("b".into()))));
        assert_eq!(read.limit, 1000);
        assert_eq!(filter(b"{}").unwrap().limit, 1000);
        for bad in [
            "",
            "[]",
            r#"{"limit": 0}"#,
            r#"{"limit": 10001}"#,
            r#"{"state": "failed"}"#,
        ] {
            assert!(filter(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
