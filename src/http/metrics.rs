//! `GET /metrics`: the same numbers as `/stats`, for Prometheus.

use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::api::Api;
use super::code::Code;
use super::problem::Problem;
use crate::domain::stats::{Crew, Stats, Tally};
use crate::domain::task::State as TaskState;
use crate::store::StoreError;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses(
        (status = 200, description = "The metrics, in the text format of Prometheus or OpenMetrics", body = String, content_type = "text/plain"),
    )
)]
pub async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let mut registry = Registry::default();
    let seen = async {
        let stats = api.store.stats(None).await?;
        Ok((stats, api.store.muster(api.workers.report()).await?))
    };
    let seen: Result<_, StoreError> = seen.await;
    register_health(seen.as_ref().err(), &mut registry);
    if let Ok((stats, crew)) = &seen {
        register(stats, *crew, &mut registry);
    }
    api.requests().register(&mut registry);
    let mut body = String::new();
    text::encode(&mut body, &registry)
        .map_err(|error| Problem::new(Code::Internal, "").caused_by(error))?;
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let media_type = match accept {
        Some(accept) if accept.contains("application/openmetrics-text") => OPEN_METRICS,
        _ => PLAIN_TEXT,
    };
    Ok(([(header::CONTENT_TYPE, media_type)], body).into_response())
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tasks {
    r#type: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Latency {
    stage: &'static str,
    quantile: &'static str,
}

type Number = Gauge<f64, AtomicU64>;

/// Without its store, a process still tells of itself.
fn register_health(failure: Option<&StoreError>, registry: &mut Registry) {
    for (name, help, holds) in [
        (
            "justonce_store_available",
            "1 while the store answers this process",
            failure.is_none(),
        ),
        (
            "justonce_state_lost",
            "1 while the store lacks what it has acknowledged, until an operator accepts it",
            failure == Some(&StoreError::StateLost),
        ),
    ] {
        let gauge = Number::default();
        gauge.set(f64::from(u8::from(holds)));
        registry.register(name, help, gauge);
    }
}

fn register(stats: &Stats, crew: Crew, registry: &mut Registry) {
    let tasks = Family::<Tasks, Gauge>::default();
    for (name, counts) in &stats.by_type {
        for state in TaskState::ALL {
            let labels = Tasks {
                r#type: name.clone(),
                state: state.name(),
            };
            let count = i64::try_from(counts.of(state)).unwrap_or(i64::MAX);
            tasks.get_or_create(&labels).set(count);
        }
    }
    registry.register(
        "justonce_tasks",
        "Tasks on record, by type and state",
        tasks,
    );

    let tally = &stats.windows.all;
    let submissions = Family::<Outcome, Counter>::default();
    for (outcome, count) in [
        ("accepted", tally.accepted),
        ("duplicate_by_key", tally.duplicates_by_key),
        ("duplicate_by_fingerprint", tally.duplicates_by_fingerprint),
        ("key_reused", tally.key_reused),
    ] {
        submissions
            .get_or_create(&Outcome { outcome })
            .inc_by(count);
    }
    registry.register(
        "justonce_submissions",
        "Submissions, by what became of them",
        submissions,
    );
    for (name, help, count) in counters(tally) {
        let counter = Counter::<u64>::default();
        counter.inc_by(count);
        registry.register(name, help, counter);
    }

    let latency = Family::<Latency, Number>::default();
    for (stage, histogram) in [
        ("submit", &stats.latency.submit),
        ("queue_wait", &stats.latency.queue_wait),
        ("run", &stats.latency.run),
    ] {
        let quantiles = histogram.quantiles();
        for (quantile, ms) in [
            ("0.5", quantiles.p50),
            ("0.9", quantiles.p90),
            ("0.99", quantiles.p99),
        ] {
            latency
                .get_or_create(&Latency { stage, quantile })
                .set(ms / 1000.0);
        }
    }
    registry.register(
        "justonce_latency_seconds",
        "Quantiles over the current and the last hour, by stage, in seconds",
        latency,
    );

    for (name, help, value) in [
        (
            "justonce_queue_oldest_seconds",
            "How long the oldest ready task has waited, in seconds",
            stats.queue_oldest_seconds,
        ),
        (
            "justonce_workers_busy",
            "Attempts that run, in all replicas",
            crew.busy as f64,
        ),
        (
            "justonce_workers_idle",
            "Attempts that could run besides, in all replicas",
            crew.idle as f64,
        ),
        (
            "justonce_replicas",
            "Processes that share this store",
            crew.replicas as f64,
        ),
    ] {
        let gauge = Number::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
}

#[rustfmt::skip]
fn counters(tally: &Tally) -> [(&'static str, &'static str, u64); 11] {
    [
        ("justonce_cache_hits",             "Duplicates answered with the result of an ended task",   tally.cache_hits),
        ("justonce_attempts",               "Attempts begun",                                         tally.attempts),
        ("justonce_retries",                "Attempts after the first",                               tally.retries),
        ("justonce_retry_successes",        "Tasks that succeeded after more than one attempt",       tally.retry_successes),
        ("justonce_task_failures",          "Tasks that ended failed",                                tally.failures),
        ("justonce_leases_lost",            "Leases that expired before their attempt ended",         tally.leases_lost),
        ("justonce_writes_fenced",          "Writes refused for a stale fencing token",               tally.writes_fenced),
        ("justonce_saved_executions",       "Executions that duplicates did not need",                tally.saved_executions),
        ("justonce_saved_milliseconds",     "Run time that duplicates did not need, in milliseconds", tally.saved_ms),
        ("justonce_saved_bytes_not_sent",   "File bytes that clients did not have to send",           tally.saved_bytes_not_sent),
        ("justonce_saved_bytes_not_stored", "File bytes that were not stored again",                  tally.saved_bytes_not_stored),
    ]
}
