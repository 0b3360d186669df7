//! `GET /stats`: the numbers for people and dashboards.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::api::{Api, AuthMode};
use super::caller::Caller;
use super::problem::Problem;
use crate::domain::principal::Scope;
use crate::domain::stats::{Crew, Histogram, Quantiles, StateCounts, Stats, Tally};
use crate::domain::task::State as TaskState;

/// Counts, rates and latencies
///
/// Of all users with the scope `metrics` or while authentication is off, else of the caller.
#[utoipa::path(
    get, path = "/stats", tag = "operation", operation_id = "stats",
    responses(
        (status = 200, description = "The numbers", body = StatsDocument),
    )
)]
pub async fn stats(State(api): State<Api>, Caller(principal): Caller) -> Result<Response, Problem> {
    let sees_all = api.edge.auth == AuthMode::Off || principal.scopes.allow(Scope::Metrics);
    let user = (!sees_all).then_some(&principal.user);
    let stats = api.store.stats(user).await?;
    let crew = api.store.muster(api.workers.report()).await?;
    let document = StatsDocument::new(&stats, crew, sees_all);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(document)).into_response())
}

#[derive(Serialize, ToSchema)]
pub struct StatsDocument {
    #[schema(format = DateTime)]
    generated_at: String,
    /// `all` or `user`.
    scope: &'static str,
    total_tasks: u64,
    /// Scheduled, queued and retrying.
    pending: u64,
    running: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    by_type: BTreeMap<String, TypeCounts>,
    queue: QueueNumbers,
    workers: WorkerNumbers,
    /// In milliseconds, over the current and the last hour.
    latency_ms: LatencyNumbers,
    windows: WindowNumbers,
}

#[derive(Serialize, ToSchema)]
struct TypeCounts {
    total: u64,
    pending: u64,
    running: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

#[derive(Serialize, ToSchema)]
struct QueueNumbers {
    /// Tasks that are ready to run.
    depth: u64,
    /// How long the oldest of them has been ready.
    oldest_seconds: f64,
}

/// Of all replicas that were there in the last seconds.
#[derive(Serialize, ToSchema)]
struct WorkerNumbers {
    busy: u64,
    idle: u64,
    replicas: u64,
}

#[derive(Serialize, ToSchema)]
struct LatencyNumbers {
    /// From the whole request to the decision.
    submit: QuantileNumbers,
    /// From being ready to run to the lease.
    queue_wait: QuantileNumbers,
    /// From the lease to the end of the attempt.
    run: QuantileNumbers,
}

#[derive(Serialize, ToSchema)]
struct QuantileNumbers {
    p50: f64,
    p90: f64,
    p99: f64,
}

#[derive(Serialize, ToSchema)]
struct WindowNumbers {
    all: Window,
    #[serde(rename = "1m")]
    minute: Window,
    #[serde(rename = "1h")]
    hour: Window,
    #[serde(rename = "24h")]
    day: Window,
}

#[derive(Serialize, ToSchema)]
struct Window {
    accepted: u64,
    duplicates_by_key: u64,
    duplicates_by_fingerprint: u64,
    /// Duplicates as a share of what was admitted, 0 to 1.
    dedup_rate: f64,
    cache_hits: u64,
    key_reused: u64,
    attempts: u64,
    retries: u64,
    retry_success_rate: f64,
    failures: u64,
    leases_lost: u64,
    writes_fenced: u64,
    saved: Saved,
}

#[derive(Serialize, ToSchema)]
struct Saved {
    executions: u64,
    seconds: f64,
    bytes_not_sent: u64,
    bytes_not_stored: u64,
}

impl StatsDocument {
    fn new(stats: &Stats, crew: Crew, sees_all: bool) -> Self {
        let counts = TypeCounts::from(&stats.counts);
        let by_type = stats.by_type.iter();
        StatsDocument {
            generated_at: stats.generated_at.to_string(),
            scope: if sees_all { "all" } else { "user" },
            total_tasks: counts.total,
            pending: counts.pending,
            running: counts.running,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            by_type: by_type.map(|(name, c)| (name.clone(), c.into())).collect(),
            queue: QueueNumbers {
                depth: stats.counts.of(TaskState::Queued),
                oldest_seconds: stats.queue_oldest_seconds,
            },
            workers: WorkerNumbers {
                busy: crew.busy,
                idle: crew.idle,
                replicas: crew.replicas,
            },
            latency_ms: LatencyNumbers {
                submit: (&stats.latency.submit).into(),
                queue_wait: (&stats.latency.queue_wait).into(),
                run: (&stats.latency.run).into(),
            },
            windows: WindowNumbers {
                all: (&stats.windows.all).into(),
                minute: (&stats.windows.minute).into(),
                hour: (&stats.windows.hour).into(),
                day: (&stats.windows.day).into(),
            },
        }
    }
}

impl From<&StateCounts> for TypeCounts {
    fn from(counts: &StateCounts) -> Self {
        TypeCounts {
            total: counts.total(),
            pending: counts.pending(),
            running: counts.of(TaskState::Running),
            completed: counts.of(TaskState::Succeeded),
            failed: counts.of(TaskState::Failed),
            cancelled: counts.of(TaskState::Cancelled),
        }
    }
}

impl From<&Histogram> for QuantileNumbers {
    fn from(histogram: &Histogram) -> Self {
        let Quantiles { p50, p90, p99 } = histogram.quantiles();
        QuantileNumbers { p50, p90, p99 }
    }
}

impl From<&Tally> for Window {
    fn from(tally: &Tally) -> Self {
        Window {
            accepted: tally.accepted,
            duplicates_by_key: tally.duplicates_by_key,
            duplicates_by_fingerprint: tally.duplicates_by_fingerprint,
            dedup_rate: tally.dedup_rate(),
            cache_hits: tally.cache_hits,
            key_reused: tally.key_reused,
            attempts: tally.attempts,
            retries: tally.retries,
            retry_success_rate: tally.retry_success_rate(),
            failures: tally.failures,
            leases_lost: tally.leases_lost,
            writes_fenced: tally.writes_fenced,
            saved: Saved {
                executions: tally.saved_executions,
                seconds: tally.saved_ms as f64 / 1000.0,
                bytes_not_sent: tally.saved_bytes_not_sent,
                bytes_not_stored: tally.saved_bytes_not_stored,
            },
        }
    }
}
