//! Whether this process lives, and whether it can serve.

use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::api::{Api, AuthMode};
use super::caller::Caller;
use crate::store::Guarantees;

/// How long readyz waits for the store and for the blobs.
const PING_WAIT_MAX: Duration = Duration::from_secs(2);

/// The process lives
///
/// Says nothing about the store: a process that waits for its store must not be restarted for it.
#[utoipa::path(
    get, path = "/livez", tag = "health", operation_id = "livez", security(()),
    responses((status = 200, description = "The process lives", body = Health, content_type = "application/health+json"))
)]
pub async fn livez() -> Response {
    document(true, Map::new())
}

/// The service can serve
///
/// 503 while it drains, or cannot reach its store or its files. Without a key only the status is shown.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "readyz", security((), ("bearer" = [])),
    responses(
        (status = 200, description = "Able to serve", body = Health, content_type = "application/health+json"),
        (status = 503, description = "Not able to serve now", body = Health, content_type = "application/health+json"),
    )
)]
pub async fn readyz(State(api): State<Api>, Insight(insight): Insight) -> Response {
    let (is_ready, checks) = checks(&api).await;
    let mut members = Map::new();
    if insight {
        members.insert("checks".to_owned(), checks);
    }
    document(is_ready, members)
}

/// The same as `/readyz`
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "healthz", security((), ("bearer" = [])),
    responses(
        (status = 200, description = "Able to serve", body = Health, content_type = "application/health+json"),
        (status = 503, description = "Not able to serve now", body = Health, content_type = "application/health+json"),
    )
)]
pub async fn healthz(state: State<Api>, insight: Insight) -> Response {
    readyz(state, insight).await
}

/// The same as `/readyz`, with the limits
#[utoipa::path(
    get, path = "/health", tag = "health", operation_id = "health", security((), ("bearer" = [])),
    responses(
        (status = 200, description = "Able to serve", body = Health, content_type = "application/health+json"),
        (status = 503, description = "Not able to serve now", body = Health, content_type = "application/health+json"),
    )
)]
pub async fn health(State(api): State<Api>, Insight(insight): Insight) -> Response {
    let (is_ready, checks) = checks(&api).await;
    let mut members = Map::new();
    if insight {
        members.insert("checks".to_owned(), checks);
        let limits = json!({
            "concurrent_tasks": api.workers.capacity(),
            "rate_limit_per_minute": api.limits.quotas.usual.requests_per_minute,
        });
        members.insert("limits".to_owned(), limits);
    }
    document(is_ready, members)
}

/// Whether the caller may see more than the status.
pub struct Insight(bool);

impl FromRequestParts<Api> for Insight {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Self::Rejection> {
        let is_known = parts.extensions.get::<Caller>().is_some();
        Ok(Insight(is_known || api.edge.auth == AuthMode::Off))
    }
}

/// `application/health+json`, as the IETF draft "Health Check Response Format for HTTP APIs" has it.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct Health {
    /// `pass` or `fail`.
    #[schema(example = "pass")]
    status: String,
    /// What was looked at, by name.
    checks: Option<std::collections::BTreeMap<String, HealthCheck>>,
    /// Only on `/health`.
    limits: Option<HealthLimits>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct HealthCheck {
    /// `pass` or `fail`.
    #[schema(example = "pass")]
    status: String,
    /// Of `draining` a boolean; of `eviction_policy` what a full store does, of which only `noeviction` passes.
    value: Option<serde_json::Value>,
    /// Of `store`: what acknowledgements survive (`memory`, `fsync` or `replicated-fsync`).
    durability: Option<String>,
    /// Of `store` and `eviction_policy`: whether the operator vouches for it, where the store does not show it.
    assumed: Option<bool>,
    /// Of `store`: why it fails.
    output: Option<String>,
    /// Of `workers`: attempts at a time in this process.
    capacity: Option<u64>,
    /// Of `workers`: attempts that run.
    busy: Option<u64>,
    /// Of `sandbox`: the layers that are active.
    layers: Option<Vec<String>>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct HealthLimits {
    /// Attempts at a time of work that uses the processor, in this process.
    concurrent_tasks: u64,
    /// Requests of one user, where nothing else is said for that user. None when they are not limited.
    rate_limit_per_minute: Option<u64>,
}

async fn checks(api: &Api) -> (bool, Value) {
    let (store, blobs) = tokio::join!(
        timeout(PING_WAIT_MAX, api.store.ping()),
        timeout(PING_WAIT_MAX, api.blobs.ping()),
    );
    let store_fault = match store {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the store does not answer in time".to_owned()),
    };
    let has_store = store_fault.is_none();
    let Guarantees {
        eviction_policy,
        are_assumed,
    } = api.store.guarantees();
    let never_evicts = eviction_policy == Guarantees::NOEVICTION;
    let has_blobs = matches!(blobs, Ok(Ok(())));
    let draining = api.draining.is_cancelled();
    let status = |passes: bool| if passes { "pass" } else { "fail" };
    let checks = json!({
        "store": {
            "status": status(has_store),
            "durability": api.store.durability().name(),
            "assumed": are_assumed,
            "output": store_fault,
        },
        "eviction_policy": {
            "status": status(never_evicts),
            "value": eviction_policy,
            "assumed": are_assumed,
        },
        "blobs": {"status": status(has_blobs)},
        "workers": {
            "status": "pass",
            "capacity": api.workers.capacity(),
            "busy": api.workers.busy(),
        },
        "draining": {"status": status(!draining), "value": draining},
        "sandbox": {"status": "pass", "layers": api.sandbox},
    });
    (has_store && has_blobs && !draining, checks)
}

fn document(passes: bool, mut members: Map<String, Value>) -> Response {
    let (status, word) = if passes {
        (StatusCode::OK, "pass")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "fail")
    };
    members.insert("status".to_owned(), word.into());
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/health+json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, Value::Object(members).to_string()).into_response()
}
