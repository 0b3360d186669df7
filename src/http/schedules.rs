//! `/v1/schedules`: what is submitted again and again, by the clock.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::api::Api;
use super::body::read_limited;
use super::caller::Caller;
use super::clock;
use super::code::Code;
use super::openapi::ProblemDocument;
use super::outliving::finish;
use super::problem::Problem;
use super::submission::plan;
use super::{answer, media_type, query, views};
use crate::domain::principal::UserId;
use crate::domain::schedule::{Missed, Plan, Refusal, Schedule, ScheduleName};
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::links::Link;
use crate::store::{NewSchedule, PutSchedule, StoreError};

/// IANA's name for this problem.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// How often a store may say that it is another time there.
const CLOCK_READ_MAX: usize = 3;

/// What is to be submitted, and when.
#[derive(ToSchema)]
#[schema(as = ScheduleRequest)]
#[expect(
    dead_code,
    reason = "only the documentation reads it: Plan is read by hand"
)]
pub struct PlanDocument {
    /// Minute, hour, day of month, month and day of week; with seconds before them, or a year behind, if wanted.
    /// `@daily` and its like will do, too. At most 256 characters.
    #[schema(example = "30 2 * * *", max_length = 256)]
    cron: String,
    /// IANA's name. Default: `UTC`.
    ///
    /// A pattern that names some hours of the day fires once in a local time that daylight saving doubles, and at the
    /// first moment after the gap for those that it skips. A pattern of every hour goes by the time that passes.
    #[schema(example = "Europe/Berlin", nullable = false)]
    time_zone: Option<String>,
    /// A task type that needs no files.
    #[schema(example = "echo")]
    r#type: String,
    /// As the type's schema says. Absent is the same as `{}`.
    #[schema(value_type = Option<Object>, nullable = false)]
    params: Option<Value>,
    /// Told of the end of each task, as a submission's is.
    #[schema(nullable = false, format = "uri", max_length = 2048)]
    callback_url: Option<String>,
    /// What becomes of firings that are more than 10 s late. `skip`: they are left out. `run_once`, the default: all
    /// together run once, as the newest of them. `run_all`: each runs; of more than 1,000 the newest.
    #[schema(value_type = Option<MissedDocument>, nullable = false)]
    missed: Option<String>,
    /// Whether it rests. What would have fired meanwhile is not missed.
    #[schema(nullable = false)]
    paused: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = MissedFirings)]
pub enum MissedDocument {
    Skip,
    RunOnce,
    RunAll,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ScheduleList)]
pub struct SchedulesView<'a> {
    items: Vec<ScheduleView<'a>>,
}

/// A schedule. Members without a value are null.
#[derive(Serialize, ToSchema)]
#[schema(as = Schedule)]
pub struct ScheduleView<'a> {
    name: &'a str,
    cron: &'a str,
    time_zone: &'a str,
    #[serde(rename = "type")]
    task_type: &'a str,
    #[schema(value_type = Object)]
    params: &'a Value,
    callback_url: Option<&'a str>,
    #[schema(value_type = MissedDocument)]
    missed: Missed,
    paused: bool,
    /// Null while it is paused, and after its last firing.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_fire_at: Option<Timestamp>,
    /// When the last firing was due.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_fired_at: Option<Timestamp>,
    /// Its task. All tasks of a schedule have the tag `schedule:<name>`.
    #[schema(value_type = Option<String>)]
    last_task_id: Option<&'a TaskId>,
    /// A later firing that was left out, since its task type did not take it: the type may have changed. Null again
    /// after one that was submitted.
    last_error: Option<RefusalView<'a>>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    links: ScheduleLinks,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ScheduleError)]
struct RefusalView<'a> {
    /// When the firing was due.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    detail: &'a str,
}

#[derive(Serialize, ToSchema)]
struct ScheduleLinks {
    #[serde(rename = "self")]
    itself: String,
    last_task: Option<String>,
}

/// The caller's schedules, by name
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules",
    responses((status = 200, description = "All of them, at most 1,000", body = SchedulesView))
)]
pub async fn list_schedules(
    State(api): State<Api>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let schedules = api.store.schedules(&caller.0.user).await?;
    let items = schedules.iter().map(|one| ScheduleView::of(&api, one));
    let view = SchedulesView {
        items: items.collect(),
    };
    shown(&view)
}

/// A schedule, and what it does next
#[utoipa::path(
    get, path = "/v1/schedules/{name}", tag = "schedules",
    params(("name" = String, Path, description = "1 to 64 characters of `A-Za-z0-9._-`")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleView),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_schedule(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let name = ScheduleName::parse(&name).ok_or_else(Problem::not_found)?;
    let schedule = api.store.schedule(&caller.0.user, &name).await?;
    let schedule = schedule.ok_or_else(Problem::not_found)?;
    shown(&ScheduleView::of(&api, &schedule))
}

/// Keep a schedule
///
/// In place of an earlier one of this name. Each firing is a submission under a key of its own, so that it runs once
/// however many replicas there are; it matches no other submission by content. As long as `cron`, `time_zone` and
/// `paused` stay as they were, the next firing does, too.
#[utoipa::path(
    put, path = "/v1/schedules/{name}", tag = "schedules",
    params(("name" = String, Path, description = "1 to 64 characters of `A-Za-z0-9._-`")),
    request_body(content = PlanDocument, content_type = "application/json"),
    responses(
        (status = 201, description = "A new schedule", body = ScheduleView, headers(
            ("Location" = String, description = "The schedule"),
            ("Durability" = String, description = "What the acknowledgement survives: `memory` or `fsync`"),
        )),
        (status = 200, description = "The schedule, replaced", body = ScheduleView, headers(
            ("Location" = String, description = "The schedule"),
            ("Durability" = String, description = "What the acknowledgement survives: `memory` or `fsync`"),
        )),
        (status = 400, description = "`invalid-json`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "`payload-too-large`: more than 64 KiB", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed` `unknown-task-type` `callback-url-rejected`; also for a pattern that never fires", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "`quota-exceeded`: the user has 1,000 others", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn put_schedule(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let name = ScheduleName::parse(&name).ok_or_else(|| {
        Problem::invalid(
            "path:name",
            "must be 1 to 64 characters of A-Z a-z 0-9 . _ -",
        )
    })?;
    media_type::require_json(&headers, &body)?;
    let bytes_max = Schedule::BYTES_MAX.min(api.limits.json_body_bytes_max);
    let text = read_limited(body, bytes_max).await?;
    let plan = plan::read(&text, &api.types.now(), clock::now())?;
    let kept = finish(
        &api.unfinished,
        keep(api.clone(), caller.0.user, name, plan),
    )
    .await?;
    match kept {
        PutSchedule::Created(schedule) => shown_as_kept(&api, &schedule, StatusCode::CREATED),
        PutSchedule::Replaced(schedule) => shown_as_kept(&api, &schedule, StatusCode::OK),
        PutSchedule::Full => {
            let detail = format!("A user may have {} schedules.", Schedule::PER_USER_MAX);
            Err(Problem::new(Code::QuotaExceeded, detail).with_registered_type(QUOTA_EXCEEDED))
        }
        PutSchedule::AnotherTime(_) => Err(Problem::from(StoreError::Unavailable(
            "its clock does not stand still for long enough".to_owned(),
        ))),
    }
}

/// By the store's clock, whatever this machine's shows.
async fn keep(
    api: Api,
    user: UserId,
    name: ScheduleName,
    plan: Plan,
) -> Result<PutSchedule, Problem> {
    let mut found_at = clock::now();
    let mut kept = PutSchedule::AnotherTime(found_at);
    for _ in 0..CLOCK_READ_MAX {
        let new = NewSchedule {
            user: user.clone(),
            name: name.clone(),
            next_fire_at: plan::first_firing(&plan, found_at)?,
            plan: plan.clone(),
            revision: fastrand::u64(..Schedule::REVISION_MAX),
            found_at,
        };
        kept = api.store.put_schedule(new).await?;
        match kept {
            PutSchedule::AnotherTime(now) => found_at = now,
            PutSchedule::Created(_) | PutSchedule::Replaced(_) | PutSchedule::Full => break,
        }
    }
    Ok(kept)
}

/// Delete a schedule
///
/// Tasks that it has submitted stay.
#[utoipa::path(
    delete, path = "/v1/schedules/{name}", tag = "schedules",
    params(("name" = String, Path, description = "1 to 64 characters of `A-Za-z0-9._-`")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn delete_schedule(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    query::expect_none(query.as_deref())?;
    let name = ScheduleName::parse(&name).ok_or_else(Problem::not_found)?;
    match api.store.delete_schedule(&caller.0.user, &name).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}

fn shown_as_kept(api: &Api, schedule: &Schedule, status: StatusCode) -> Result<Response, Problem> {
    let view = ScheduleView::of(api, schedule);
    let mut response = shown(&view)?;
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let durability = HeaderValue::from_static(api.store.durability().name());
    headers.insert(answer::DURABILITY, durability);
    if let Ok(location) = HeaderValue::try_from(&view.links.itself) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

fn shown(view: &impl Serialize) -> Result<Response, Problem> {
    let mut response = answer::json(views::to_bytes(view)?);
    let private = HeaderValue::from_static("private, no-cache");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, private);
    Ok(response)
}

impl<'a> ScheduleView<'a> {
    fn of(api: &Api, schedule: &'a Schedule) -> Self {
        let plan = &schedule.plan;
        let last_task = schedule.last_task.as_ref();
        ScheduleView {
            name: schedule.name.as_str(),
            cron: &plan.cron,
            time_zone: &plan.time_zone,
            task_type: &plan.task_type,
            params: &plan.params,
            callback_url: plan.callback_url.as_deref(),
            missed: plan.missed,
            paused: plan.paused,
            next_fire_at: schedule.next_fire_at,
            last_fired_at: schedule.last_fired_at,
            last_task_id: last_task,
            last_error: schedule
                .last_refusal
                .as_ref()
                .map(|Refusal { at, detail }| RefusalView { at: *at, detail }),
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
            links: ScheduleLinks {
                itself: api.link(format_args!("/v1/schedules/{}", schedule.name)),
                last_task: last_task.map(|id| Link::of_task(api, id).to_string()),
            },
        }
    }
}
