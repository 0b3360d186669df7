//! `GET /v1/tasks/{id}/events`

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::pulse::{Pulse, Woken};
use super::{COMMENT, Pieces, last_event_id, nothing_more, respond, seat, text};
use crate::domain::task::{Task, TaskId};
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::tasks::find;
use crate::store::Found;
use crate::store::signals::Watch;

/// What happens to a task
///
/// Server-sent events: `state` when the task is in another state, `progress` when its attempt has come further,
/// `attempt` when an attempt has failed and another follows or a later one has begun, `notification` in place of
/// `state` when a notification over the channel `stream` has succeeded. `data` is the whole task, `id` grows by one.
/// The first event is how the task stands; with `Last-Event-ID` it is the one after that, or `reset` with the whole
/// task where those between are not known any more. After the task's end the stream ends; asked once more with the
/// last id, it answers 204, so that browsers stop asking. A comment comes every 15 seconds.
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/events",
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The task's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The task has ended, and the last event was seen"),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "`overloaded`: as many streams are open as may be", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn follow_task(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task_id = TaskId::parse(&id).ok_or_else(Problem::not_found)?;
    let watch = api.store.watch(&task_id);
    let task = find(&api, &caller, &id).await?;
    let seat = seat(&api)?;
    // An id that is none of ours was seen in no stream of ours.
    let seen = last_event_id(&headers).map(|id| number(id).unwrap_or(u64::MAX));
    if task.state.is_ended() && seen == Some(task.changes.count()) {
        return Ok(nothing_more());
    }
    Ok(respond(TaskEvents {
        pulse: Pulse::new(&api, &caller, headers),
        watch,
        id: task_id,
        caller,
        seen,
        at_hand: Some(task),
        comment_is_due: false,
        api,
        _seat: seat,
    }))
}

fn number(id: &[u8]) -> Option<u64> {
    std::str::from_utf8(id).ok()?.parse().ok()
}

struct TaskEvents {
    api: Api,
    caller: Caller,
    id: TaskId,
    watch: Watch,
    pulse: Pulse,
    /// The number of the last event that the client was sent; none before the first.
    seen: Option<u64>,
    /// As the store gave it last, while there is something left to say about it.
    at_hand: Option<Task>,
    comment_is_due: bool,
    _seat: OwnedSemaphorePermit,
}

impl Pieces for TaskEvents {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(task) = &self.at_hand {
                let event = match self.seen {
                    None => Some(task.newest_event()),
                    Some(seen) => task.events_after(seen).into_iter().next(),
                };
                if let Some(event) = event {
                    self.seen = Some(event.number);
                    return text(&self.api, &event, "").ok();
                }
                if task.state.is_ended() {
                    return None;
                }
                self.at_hand = None;
            }
            if std::mem::take(&mut self.comment_is_due) {
                return Some(COMMENT);
            }
            match self.pulse.wait(self.watch.changed()).await {
                Woken::News(()) => {}
                Woken::Beat { comment, .. } => self.comment_is_due = comment,
                Woken::Over => return None,
            }
            self.api.pace().turn(1).await;
            match self.api.store.get(&self.caller.0.user, &self.id).await {
                Ok(Found::Here(task)) => self.at_hand = Some(task),
                Ok(Found::Missing(_)) => return None,
                // What was said holds until the store is back.
                Err(error) => tracing::debug!(%error, "a task that is followed cannot be read"),
            }
        }
    }
}
