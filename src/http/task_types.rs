//! `GET /v1/task-types`

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::api::Api;
use super::problem::Problem;
use super::submission::document::DedupModeDocument;
use super::{answer, views};
use crate::domain::retry::RetryPolicy;
use crate::domain::task::Priority;
use crate::domain::task_type::{
    DedupMode, DedupPolicy, FilesRule, OnOlderVersion, Retention, RunnerSpec, TaskType,
};
use crate::domain::turns::Rate;

#[derive(Serialize, ToSchema)]
#[schema(as = TaskTypeList)]
pub struct TypesView<'a> {
    items: Vec<TypeView<'a>>,
}

/// What is declared about a kind of task. Times are in seconds.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskType)]
pub struct TypeView<'a> {
    name: &'a str,
    description: &'a str,
    /// Whether its tasks wait until it is resumed.
    paused: bool,
    /// Whether only the service itself makes such tasks.
    internal: bool,
    /// Part of the fingerprint: a new version makes all work new.
    version: u32,
    /// `builtin`, `sandboxed`, `command`, `http` or `external`.
    runner: &'static str,
    /// JSON Schema; null when any object will do.
    #[schema(value_type = Option<Object>)]
    params_schema: Option<&'a Value>,
    /// `none`, `optional`, `required`, or `{"required_without": "<param>"}`.
    #[schema(value_type = Value)]
    files: FilesRule,
    /// Whether a submission without `Idempotency-Key` is refused.
    require_key: bool,
    dedup: DedupView<'a>,
    retry: RetryView,
    timeout_seconds: f64,
    lease_seconds: f64,
    #[schema(value_type = u8, maximum = 9)]
    priority: Priority,
    /// Attempts at a time in one process; null without a bound of its own.
    concurrency: Option<usize>,
    /// Attempts of one user at a time, over all processes and workers outside; null without a bound.
    concurrency_per_user: Option<u32>,
    /// JSON pointer into params: of a user's tasks with the same value there, one runs at a time. Null: no such rule.
    concurrency_key: Option<&'a str>,
    /// Starts of attempts, of all users together; null without a bound.
    rate: Option<RateView>,
    /// Starts of attempts of each user; null without a bound.
    rate_per_user: Option<RateView>,
    /// A task that has waited for so long counts as one level of priority more important among its user's.
    priority_ageing_seconds: f64,
    retention: RetentionView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TaskTypeDedup)]
struct DedupView<'a> {
    #[schema(value_type = DedupModeDocument)]
    mode: DedupMode,
    /// JSON pointers into params whose values the modes `replace`, `debounce`, `throttle` and `keep_last` match
    /// on; empty: the whole content.
    by: &'a [String],
    /// With mode `debounce`: how long its tasks wait for a newer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    delay_seconds: Option<f64>,
    /// With mode `debounce`: how long they wait at most, from the first of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_delay_seconds: Option<f64>,
    /// JSON pointers into params that are no part of the work's identity.
    ignore: &'a [String],
    include_file_name: bool,
    /// Types of one group share their fingerprints within a user.
    group: Option<&'a str>,
    window_seconds: u64,
    window_max_seconds: u64,
    max_resubmissions: u32,
    /// What becomes of content that was submitted under an older version: `rerun` makes it new work, `reuse`
    /// lets a task of the 8 versions before answer that has not ended, or succeeded within its window.
    #[schema(value_type = OnOlderVersionDocument)]
    on_older_version: OnOlderVersion,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = OnOlderVersion)]
pub enum OnOlderVersionDocument {
    Rerun,
    Reuse,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TaskTypeRetry)]
struct RetryView {
    /// The first included.
    max_attempts: u32,
    first_delay_seconds: f64,
    factor: f64,
    max_delay_seconds: f64,
    /// A share of the delay.
    jitter: f64,
}

/// So many attempts start within any span of this length, and no more.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskTypeRate)]
struct RateView {
    attempts: u32,
    seconds: f64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TaskTypeRetention)]
struct RetentionView {
    key_seconds: u64,
    result_seconds: u64,
    task_seconds: u64,
    failed_task_seconds: u64,
    file_seconds: u64,
}

/// Task types
///
/// What each demands of a submission, and how it is deduplicated, retried and kept.
#[utoipa::path(
    get,
    path = "/v1/task-types",
    tag = "tasks",
    responses((status = 200, description = "All of them, by name", body = TypesView))
)]
pub async fn list_task_types(State(api): State<Api>) -> Result<Response, Problem> {
    let paused = api.store.paused().await?;
    let types = api.types.now();
    let items = types.iter();
    let items = items.map(|made| TypeView::of(made, paused.contains(&made.name)));
    let view = TypesView {
        items: items.collect(),
    };
    Ok(answer::json(views::to_bytes(&view)?))
}

impl<'a> TypeView<'a> {
    pub fn of(task_type: &'a TaskType, paused: bool) -> Self {
        let schema = task_type.params_schema.as_ref();
        TypeView {
            name: &task_type.name,
            description: &task_type.description,
            paused,
            internal: task_type.is_internal(),
            version: task_type.version,
            runner: kind(&task_type.runner),
            params_schema: schema.map(|schema| schema.document()),
            files: task_type.files,
            require_key: task_type.require_key,
            dedup: DedupView::of(&task_type.dedup),
            retry: RetryView::of(&task_type.retry),
            timeout_seconds: task_type.timeout.as_secs_f64(),
            lease_seconds: task_type.lease.as_secs_f64(),
            priority: task_type.priority,
            concurrency: task_type.concurrency,
            concurrency_per_user: task_type.concurrency_per_user,
            concurrency_key: task_type.concurrency_key.as_deref(),
            rate: task_type.rate.map(RateView::of),
            rate_per_user: task_type.rate_per_user.map(RateView::of),
            priority_ageing_seconds: task_type.ageing.as_secs_f64(),
            retention: RetentionView::of(&task_type.retention),
        }
    }
}

/// Never what it runs: an operator's command line or URL may hold secrets.
pub fn kind(runner: &RunnerSpec) -> &'static str {
    match runner {
        RunnerSpec::Builtin(_) => "builtin",
        RunnerSpec::Sandboxed(_) => "sandboxed",
        RunnerSpec::Command(_) => "command",
        RunnerSpec::Http(_) => "http",
        RunnerSpec::External => "external",
    }
}

impl<'a> DedupView<'a> {
    fn of(dedup: &'a DedupPolicy) -> Self {
        DedupView {
            mode: dedup.mode,
            by: &dedup.by,
            delay_seconds: dedup.debounce.map(|debounce| debounce.delay.as_secs_f64()),
            max_delay_seconds: dedup
                .debounce
                .map(|debounce| debounce.max_delay.as_secs_f64()),
            ignore: &dedup.ignore,
            include_file_name: dedup.file_name,
            group: dedup.group.as_deref(),
            window_seconds: dedup.window.as_secs(),
            window_max_seconds: dedup.window_max.as_secs(),
            max_resubmissions: dedup.max_resubmissions,
            on_older_version: dedup.on_older_version,
        }
    }
}

impl RetryView {
    fn of(retry: &RetryPolicy) -> Self {
        RetryView {
            max_attempts: retry.max_attempts,
            first_delay_seconds: retry.first_delay.as_secs_f64(),
            factor: retry.factor,
            max_delay_seconds: retry.max_delay.as_secs_f64(),
            jitter: retry.jitter,
        }
    }
}

impl RateView {
    fn of(rate: Rate) -> Self {
        RateView {
            attempts: rate.attempts,
            seconds: rate.span.as_secs_f64(),
        }
    }
}

impl RetentionView {
    fn of(retention: &Retention) -> Self {
        RetentionView {
            key_seconds: retention.key.as_secs(),
            result_seconds: retention.result.as_secs(),
            task_seconds: retention.task.as_secs(),
            failed_task_seconds: retention.failed_task.as_secs(),
            file_seconds: retention.file.as_secs(),
        }
    }
}
