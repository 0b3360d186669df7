//! `GET /v1/limits`: what the caller may do, and how much of it is used.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::{Api, AuthMode};
use super::caller::Caller;
use super::prefer::Prefer;
use super::problem::Problem;
use super::rate_limit::Standing;
use super::{answer, query, views};
use crate::domain::callback::Callback;
use crate::domain::principal::{Scope, UserId};
use crate::domain::stats::{StateCounts, Stats};
use crate::domain::task::State as TaskState;

#[derive(Serialize, ToSchema)]
#[schema(as = Limits)]
pub struct LimitsView<'a> {
    #[schema(value_type = String)]
    user: &'a UserId,
    /// Of the caller. The window begins with the first request that is counted in it; this one counts, too.
    requests_per_minute: Limit,
    /// Tasks of the caller that have not ended, without deliveries of callbacks.
    unfinished_tasks: Limit,
    /// Tasks of all users that have not ended. Their number needs the scope `metrics`.
    queue_tasks: Limit,
    /// Seconds that an answer can be held for, by `Prefer: wait=N` and when leasing.
    wait_seconds: Limit,
    json_body_bytes: Limit,
    file_bytes: Limit,
    /// Files that one submission can carry.
    multipart_parts: Limit,
    result_bytes: Limit,
}

#[derive(Serialize, ToSchema)]
struct Limit {
    /// Null without a bound.
    max: Option<u64>,
    /// Null where nothing is used up, or where it is not for the caller to know.
    used: Option<u64>,
}

/// The caller's limits, and their use
#[utoipa::path(
    get,
    path = "/v1/limits",
    tag = "operation",
    responses((status = 200, description = "The limits", body = LimitsView))
)]
pub async fn get_limits(
    State(api): State<Api>,
    Caller(principal): Caller,
    standing: Option<Extension<Standing>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let own = api.store.stats(Some(&principal.user)).await?;
    let sees_all = api.edge.auth == AuthMode::Off || principal.scopes.allow(Scope::Metrics);
    let all = match sees_all {
        true => Some(api.store.stats(None).await?),
        false => None,
    };
    let limits = &api.limits;
    let quota = limits.quotas.of(&principal.user);
    let view = LimitsView {
        user: &principal.user,
        requests_per_minute: Limit {
            max: quota.requests_per_minute.map(u64::from),
            used: standing.map(|Extension(standing)| standing.used()),
        },
        unfinished_tasks: Limit {
            max: quota.unfinished_tasks,
            used: Some(unfinished(&own) - deliveries(&own)),
        },
        queue_tasks: Limit {
            max: Some(limits.queue_tasks_max),
            used: all.as_ref().map(unfinished),
        },
        wait_seconds: Limit::bound(Prefer::WAIT_SECONDS_MAX),
        json_body_bytes: Limit::bound(limits.json_body_bytes_max as u64),
        file_bytes: Limit::bound(limits.file_bytes_max),
        multipart_parts: Limit::bound(limits.multipart_parts_max as u64),
        result_bytes: Limit::bound(limits.result_bytes_max as u64),
    };
    let mut response = answer::json(views::to_bytes(&view)?);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

impl Limit {
    /// Of each request by itself.
    fn bound(max: u64) -> Self {
        Limit {
            max: Some(max),
            used: None,
        }
    }
}

fn unfinished(stats: &Stats) -> u64 {
    unfinished_of(&stats.counts)
}

/// The service's own tasks are nobody's use.
fn deliveries(own: &Stats) -> u64 {
    own.by_type
        .get(Callback::TASK_TYPE)
        .map_or(0, unfinished_of)
}

fn unfinished_of(counts: &StateCounts) -> u64 {
    let unfinished = TaskState::ALL.into_iter().filter(|state| !state.is_ended());
    unfinished.map(|state| counts.of(state)).sum()
}
