//! `POST /v1/leases`

use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::members;
use super::offer::Offer;
use super::view::LeasesView;
use super::wanted::{LeaseDocument, Wanted};
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::views;
use crate::store::{Lease, LeaseRequest, StoreError};

/// News ends a wait early; this poll ends it when news was lost.
const POLL: Duration = Duration::from_secs(5);

/// Lease tasks, for a worker outside of the service
///
/// Tasks of all users, the most important and oldest first; each lease counts as an attempt. With `wait` the answer is
/// held until there is work. Work, renew the leases in good time with `heartbeat`, and end each with `complete` or
/// `fail`; a task whose lease runs out is run again.
#[utoipa::path(
    post,
    path = "/v1/leases",
    tag = "leases",
    request_body(content = LeaseDocument, content_type = "application/json"),
    responses(
        (status = 200, description = "The leases, or none", body = LeasesView),
        (status = 400, description = "`invalid-json`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`unknown-task-type` `validation-failed`: a type that the service runs itself, too", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn lease_tasks(
    State(api): State<Api>,
    Caller(principal): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let members = members(&api, query.as_deref(), &headers, body).await?;
    let wanted = Wanted::read(members, &api.types.now(), &principal.user)?;
    let gone = CancellationToken::new();
    let _told_when_dropped = gone.clone().drop_guard();
    // A step of the store goes on when its client has gone; what it gives is handed back then.
    let look = look(api.clone(), wanted, gone);
    let offer = api.unfinished.spawn(look).await;
    let offer = offer.map_err(|error| Problem::new(Code::Internal, "").caused_by(error))??;
    let text = views::to_bytes(&LeasesView::of(&api, offer.leases()))?;
    let mut response = Response::new(offer.into_body(text));
    let fields = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    fields.insert(header::CONTENT_TYPE, json);
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn look(api: Api, wanted: Wanted, gone: CancellationToken) -> Result<Offer, StoreError> {
    let Wanted { request, wait } = wanted;
    let leases = match wait.is_zero() {
        true => api.store.lease(request).await?,
        false => wait_for_work(&api, request, Instant::now() + wait, gone).await?,
    };
    Ok(Offer::new(api, leases))
}

/// Not beyond the bound of waiting requests, and not while the replica drains.
async fn wait_for_work(
    api: &Api,
    request: LeaseRequest,
    deadline: Instant,
    gone: CancellationToken,
) -> Result<Vec<Lease>, StoreError> {
    let line = api.store.signals().line(&request.types);
    let permit = api.waiting.try_acquire();
    loop {
        let leases = api.store.lease(request.clone()).await?;
        if leases.len() >= request.max {
            line.call_next();
        }
        if !leases.is_empty() {
            return Ok(leases);
        }
        let now = Instant::now();
        let poll = POLL.mul_f64(0.8 + 0.4 * fastrand::f64());
        if permit.is_err() || now >= deadline {
            return Ok(leases);
        }
        tokio::select! {
            () = line.called() => {}
            () = tokio::time::sleep_until(deadline.min(now + poll)) => {}
            () = api.draining.cancelled() => return Ok(leases),
            () = gone.cancelled() => return Ok(leases),
        }
    }
}
