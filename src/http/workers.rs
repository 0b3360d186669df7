//! `GET /v1/workers`: who works on what.

use std::collections::BTreeSet;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::problem::Problem;
use super::{answer, query, views};
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::domain::worker::{Place, Worker};

#[derive(Serialize, ToSchema)]
#[schema(as = WorkerList)]
pub struct WorkersView<'a> {
    items: Vec<WorkerView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Worker)]
struct WorkerView<'a> {
    name: &'a str,
    /// `inside` a process of the service, or `outside`, where it leases over HTTP.
    #[schema(example = "inside")]
    place: &'static str,
    /// Attempts at a time that use the processor; null outside.
    capacity: Option<u64>,
    /// Those that it can run; outside, those of the tasks that it holds.
    #[schema(value_type = Vec<String>)]
    types: &'a BTreeSet<String>,
    /// Attempts that it runs now.
    running: u64,
    /// Their tasks, at most 100.
    #[schema(value_type = Vec<String>, max_items = 100)]
    tasks: &'a [TaskId],
    /// When the process began; outside, when it took the oldest lease that it holds.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_heartbeat_at: Timestamp,
}

/// Workers, and what they work on
///
/// Those of every replica that was there in the last seconds, and those outside that hold leases.
#[utoipa::path(
    get,
    path = "/v1/workers",
    tag = "operation",
    responses((status = 200, description = "The workers", body = WorkersView))
)]
pub async fn list_workers(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let workers = api.store.workers(api.workers.report()).await?;
    // A replica that only serves HTTP works on nothing.
    let works = |worker: &&Worker| worker.place != Place::Inside { capacity: 0 };
    let items = workers.iter().filter(works).map(WorkerView::of);
    let view = WorkersView {
        items: items.collect(),
    };
    let mut response = answer::json(views::to_bytes(&view)?);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

impl<'a> WorkerView<'a> {
    fn of(worker: &'a Worker) -> Self {
        let (place, capacity) = match worker.place {
            Place::Inside { capacity } => ("inside", Some(capacity)),
            Place::Outside => ("outside", None),
        };
        WorkerView {
            name: &worker.name,
            place,
            capacity,
            types: &worker.types,
            running: worker.running,
            tasks: &worker.tasks,
            since: worker.since,
            last_heartbeat_at: worker.heard_at,
        }
    }
}
