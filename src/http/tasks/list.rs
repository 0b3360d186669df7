//! `GET /v1/tasks`

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::fingerprint::Fingerprint;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::task::State as TaskState;
use crate::http::answer;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::views;
use crate::store::{Cursor, ListFilter};
use crate::task_view::TaskView;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;

/// One page of tasks, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskList)]
pub struct ListView<'a> {
    items: Vec<TaskView<'a>>,
    /// Leads to the next page; null on the last. A page may be short, or empty, and still have a next one.
    next_cursor: Option<String>,
}

/// Tasks, newest first
///
/// The caller's own. Paging is stable: a task that changes, or a new one, moves nothing.
#[utoipa::path(
    get,
    path = "/v1/tasks",
    tag = "tasks",
    params(
        ("state" = Option<String>, Query, description = "Tasks in this state"),
        ("type" = Option<String>, Query, description = "Tasks of this type"),
        ("tag" = Option<String>, Query, description = "`name`, or `name:value`"),
        ("key" = Option<String>, Query, description = "The task that this idempotency key names"),
        ("fingerprint" = Option<String>, Query, description = "Tasks with this fingerprint"),
        ("limit" = Option<usize>, Query, description = "1 to 200; default 50", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = ListView),
        (status = 422, description = "`validation-failed`; pointers are `query:name`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn list_tasks(
    State(api): State<Api>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let filter = filter(query.as_deref())?;
    let page = api.store.list(&caller.0.user, filter).await?;
    let view = ListView {
        items: page
            .tasks
            .iter()
            .map(|task| TaskView::of(&api, task))
            .collect(),
        next_cursor: page.next.map(cursor_text),
    };
    let mut response = answer::json(views::to_bytes(&view)?);
    let private = HeaderValue::from_static("private, no-cache");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, private);
    Ok(response)
}

fn filter(query: Option<&str>) -> Result<ListFilter, Problem> {
    let known = [
        "state",
        "type",
        "tag",
        "key",
        "fingerprint",
        "limit",
        "cursor",
    ];
    let mut query = Query::read(query, &known);
    let limit = query.parsed("limit", "must be an integer from 1 to 200", |text| {
        text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n))
    });
    let filter = ListFilter {
        state: query.parsed("state", "is not a state", TaskState::parse),
        task_type: query.text("type"),
        tag: query.parsed("tag", "must be name or name:value", tag),
        key: query.parsed("key", "is not an idempotency key", |text| {
            IdempotencyKey::parse(text.as_bytes()).ok()
        }),
        fingerprint: query.parsed("fingerprint", "is not a fingerprint", Fingerprint::parse),
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        cursor: query.parsed("cursor", "is not a cursor of this list", parse_cursor),
    };
    query.check()?;
    Ok(filter)
}

/// `name`, or `name:value`; the name ends at the first colon.
pub fn tag(text: &str) -> Option<(String, Option<String>)> {
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    (!name.is_empty()).then(|| (name.to_owned(), value))
}

fn cursor_text(cursor: Cursor) -> String {
    URL_SAFE_NO_PAD.encode(cursor.0.to_be_bytes())
}

fn parse_cursor(text: &str) -> Option<Cursor> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let bytes = <[u8; 8]>::try_from(bytes).ok()?;
    Some(Cursor(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_strictly() {
        let read = filter(Some(
            "state=failed&type=echo&tag=env:a:b&limit=200&key=%22k%22",
        ))
        .unwrap();
        assert_eq!(read.state, Some(TaskState::Failed));
        assert_eq!(read.tag, Some(("env".into(), Some("a:b".into()))));
        assert_eq!(read.limit, 200);
        assert_eq!(read.key.unwrap().as_str(), "k");
        assert_eq!(filter(None).unwrap().limit, LIMIT_DEFAULT);
        for bad in [
            "state=x",
            "tag=",
            "tag=:v",
            "limit=0",
            "limit=201",
            "limit=x",
            "cursor=x",
            "page=1",
        ] {
            assert!(filter(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn cursors_go_there_and_back() {
        for cursor in [Cursor(0), Cursor(77), Cursor(u64::MAX)] {
            assert_eq!(parse_cursor(&cursor_text(cursor)), Some(cursor));
        }
    }
}
