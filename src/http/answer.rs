//! The answer to a submission, and the headers that tasks are shown with.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::api::Api;
use super::clock;
use super::code::Code;
use super::head::{IDEMPOTENCY_KEY, SubmissionHead};
use super::prefer::PREFERENCE_APPLIED;
use super::problem::Problem;
use super::submission::file_reference;
use super::{rate_limit, retry_after, wait};
use crate::domain::task::Task;
use crate::domain::timestamp::Timestamp;
use crate::links::Link;
use crate::store::{AdmissionAnswer, Admitted, MatchedBy};
use crate::task_view::TaskView;

pub const DURABILITY: HeaderName = HeaderName::from_static("durability");
const IDEMPOTENCY_EXPIRES: HeaderName = HeaderName::from_static("idempotency-expires");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Says what became of a submission, after the wait that its client wished for.
pub async fn to_submission(
    api: &Api,
    head: &SubmissionHead,
    admitted: Admitted,
) -> Result<Response, Problem> {
    let (answer, matched_by) = acknowledged(api, admitted)?;
    acknowledge(api, head, answer, matched_by).await
}

/// The task that a submission gets, and what matched if it is a duplicate; or why it gets none.
pub fn acknowledged(
    api: &Api,
    admitted: Admitted,
) -> Result<(AdmissionAnswer, Option<MatchedBy>), Problem> {
    match admitted {
        Admitted::New(answer) => Ok((answer, None)),
        Admitted::Duplicate { answer, matched_by } => Ok((answer, Some(matched_by))),
        Admitted::KeyReused { differs } => Err(Problem::new(
            Code::IdempotencyKeyReused,
            "This key names an earlier submission with other content.",
        )
        .with("differs", differs)),
        Admitted::KeyForgotten => Err(forgotten()),
        Admitted::Rejected(task) => {
            let problem = duplicate(api, &task.id)
                .with("matched_by", "fingerprint")
                .with("matched_since", task.created_at.to_string());
            Err(match task.dedup_expires_at {
                Some(at) => problem.with("matched_until", at.to_string()),
                None => problem,
            })
        }
        Admitted::FileUnknown(sha256) => Err(file_reference::unknown(&sha256)),
        Admitted::QueueFull => Err(Problem::new(
            Code::QueueFull,
            "No more unfinished tasks are taken at present.",
        )),
        Admitted::QuotaExceeded { unfinished_max } => {
            Err(rate_limit::too_many_unfinished(unfinished_max))
        }
    }
}

async fn acknowledge(
    api: &Api,
    head: &SubmissionHead,
    answer: AdmissionAnswer,
    matched_by: Option<MatchedBy>,
) -> Result<Response, Problem> {
    let ended_before = answer.task.state.is_ended();
    let waited = wait::for_end(api, *answer.task, head.prefer.wait()).await;
    let task = &waited.task;
    let key_expires_at = match ended_before {
        true => answer.key_expires_at,
        false => key_expires_at(api, task),
    };
    let view = TaskView::of(api, task).matched(matched_by, key_expires_at, &answer.ignored);
    let mut response = acknowledgement(api, task, view.to_bytes()?);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(applied) = head.prefer.applied(waited.granted) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    if let Some(sent) = &head.key {
        headers.insert(IDEMPOTENCY_KEY, sent.as_sent.clone());
        if let Some(at) = key_expires_at.and_then(|at| HeaderValue::try_from(at.to_string()).ok()) {
            headers.insert(IDEMPOTENCY_EXPIRES, at);
        }
    }
    if matched_by == Some(MatchedBy::IdempotencyKey) {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// For a task that ended while its client waited: its key is kept from the end on.
fn key_expires_at(api: &Api, task: &Task) -> Option<Timestamp> {
    let ended_at = task.finished_at.filter(|_| task.state.is_ended())?;
    let retention = api.types.get(&task.task_type)?.retention.key;
    Some(ended_at.plus(retention))
}

/// A task after a change to it, and what that change survives.
pub fn acknowledgement(api: &Api, task: &Task, body: Vec<u8>) -> Response {
    let mut response = of_task(api, task, body);
    let durability = HeaderValue::from_static(api.store.durability().name());
    response.headers_mut().insert(DURABILITY, durability);
    response
}

/// A task with its place: 200 when it has ended, else 202 and when to ask again.
pub fn of_task(api: &Api, task: &Task, body: Vec<u8>) -> Response {
    let mut response = json(body);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(Link::of_task(api, &task.id).to_string()) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(seconds) = retry_after::of(task, clock::now()) {
        headers.insert(header::RETRY_AFTER, seconds);
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}

pub fn json(body: Vec<u8>) -> Response {
    /// As many as most answers have, those of the layers included.
    const USUAL_HEADERS: usize = 12;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.reserve(USUAL_HEADERS);
    let value = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, value);
    response
}

/// Another task answers for this content.
pub fn duplicate(api: &Api, task: &crate::domain::task::TaskId) -> Problem {
    let problem = Problem::new(
        Code::DuplicateSubmission,
        "A task with this content exists already.",
    )
    .with("task_id", task.as_str());
    match HeaderValue::try_from(Link::of_task(api, task).to_string()) {
        Ok(location) => problem.with_header(header::LOCATION, location),
        Err(_) => problem,
    }
}

pub fn forgotten() -> Problem {
    Problem::new(
        Code::TaskForgotten,
        "The task was deleted, or its retention is over.",
    )
}
