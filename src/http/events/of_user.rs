//! `GET /v1/events`

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::pulse::{Pulse, Woken};
use super::survey::Stand;
use super::{COMMENT, Pieces, last_event_id, message, respond, seat, text};
use crate::domain::event::Event;
use crate::domain::task::{State as TaskState, Task, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::clock;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::store::signals::Following;
use crate::store::{Cursor, Found, ListFilter, StoreError};

/// Tasks that one stream knows the last event of, at most.
const SEEN_MAX: usize = 2_000;

/// To go through how so many tasks stand costs as much as a look at a single one.
const STANDS_OF_A_LOOK: usize = 500;

/// Tasks of each ended state that are looked at for a client that comes back, newest first.
const LOOKED_AT_MAX: usize = 1_000;

/// Tasks of one page of those.
const PAGE: usize = 200;

/// Looks at single tasks that a page counts as.
const PAGE_TASKS: u32 = 20;

/// How far the clocks of replicas and of the store may be apart, in ms.
const CLOCKS_APART_MS: i64 = 5_000;

/// What happens to the caller's tasks
///
/// As the events of one task, of all of them from now on. `id` is the number of the event within its task, and behind
/// a dash what the stream needs to go on: with `Last-Event-ID` it begins with one `reset` for each task that is
/// unfinished or has ended since, among the newest thousand of each state.
///
/// Messages to the user, sent by `send_notification` over the channel `stream`, come as `notification`; `data` is the
/// task, with the message in its `result`. A stream that is resumed tells those that have come since, among the newest
/// thousand. One that the client may have seen, since it came within seconds of its last event, is told as `reset`: a
/// message never comes as `notification` twice.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "tasks",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 503, description = "`overloaded`: as many streams are open as may be", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn follow_tasks(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seat = seat(&api)?;
    let last_event_id = last_event_id(&headers).map(|id| time_of(id).unwrap_or_default());
    let mut events = UserEvents {
        news: api.store.follow(&caller.0.user),
        pulse: Pulse::new(&api, &caller, headers),
        seen: Seen::default(),
        to_look_at: VecDeque::new(),
        at_hand: None,
        // Whoever has connected sees it at once.
        comment_is_due: true,
        caller,
        api,
        _seat: seat,
    };
    events.begin(last_event_id).await?;
    Ok(respond(events))
}

/// When the event was sent.
fn time_of(id: &[u8]) -> Option<Timestamp> {
    let (_, ms) = std::str::from_utf8(id).ok()?.split_once('-')?;
    ms.parse().ok().map(Timestamp::from_ms)
}

struct UserEvents {
    api: Api,
    caller: Caller,
    news: Following,
    pulse: Pulse,
    seen: Seen,
    to_look_at: VecDeque<TaskId>,
    /// As the store gave it last, while there is something left to say about it.
    at_hand: Option<Task>,
    comment_is_due: bool,
    _seat: OwnedSemaphorePermit,
}

impl UserEvents {
    /// Notes how all unfinished tasks stand; or, for a client that has seen events up to `since`, has those told
    /// that it may not know of.
    async fn begin(&mut self, since: Option<Timestamp>) -> Result<(), StoreError> {
        // Whatever comes after this one is new to the client.
        let newest = ListFilter {
            limit: 1,
            ..ListFilter::default()
        };
        let newest = self.api.store.list(&self.caller.0.user, newest).await?;
        self.seen.newest_forgotten = newest.tasks.first().map(|task| task.created_at);
        let stands = self.survey().await?;
        let Some(since) = since else {
            for stand in &*stands {
                self.seen.note_unfinished(stand, stand.number);
            }
            return Ok(());
        };
        for stand in stands.iter().rev() {
            self.seen.note_unfinished(stand, RESET);
            self.to_look_at.push_back(stand.id.clone());
        }
        for state in TaskState::ALL.into_iter().filter(|state| state.is_ended()) {
            let is_whole = self.begin_with(since, state, None).await?;
            if state == TaskState::Succeeded && !is_whole {
                for name in message::types(&self.api) {
                    self.begin_with(since, state, Some(name)).await?;
                }
            }
        }
        Ok(())
    }

    /// What ended in this state at or after that time. Whether these were all.
    async fn begin_with(
        &mut self,
        since: Timestamp,
        state: TaskState,
        task_type: Option<String>,
    ) -> Result<bool, StoreError> {
        let api = self.api.clone();
        let mut told = Vec::new();
        let is_whole = self
            .each_in(state, task_type, |seen, task| {
                let told_before = match Told::before(since, task) {
                    _ if seen.number_of(&task.id).is_some() => return,
                    Told::No if message::is_brought_by(&api, task) => {
                        // All but its end, so that the message comes as one.
                        task.changes.count() - 1
                    }
                    Told::No | Told::Perhaps => RESET,
                    Told::Yes => return,
                };
                seen.note(task, told_before);
                told.push(task.id.clone());
            })
            .await?;
        self.to_look_at.extend(told.into_iter().rev());
        Ok(is_whole)
    }

    /// How all unfinished tasks stand.
    async fn survey(&self) -> Result<Arc<[Stand]>, StoreError> {
        let stands = self
            .api
            .surveys()
            .of(&self.api, &self.caller.0.user)
            .await?;
        let pace = self.api.pace();
        pace.turn_for(stands.len(), STANDS_OF_A_LOOK).await;
        Ok(stands)
    }

    /// Any task may have changed: looks at all that are unfinished, or were.
    async fn look_at_all(&mut self) -> Result<(), StoreError> {
        let stands = self.survey().await?;
        let mut gone: HashSet<&TaskId> = self.seen.unfinished().collect();
        let mut changed = Vec::new();
        for stand in &*stands {
            gone.remove(&stand.id);
            if self.seen.number_of(&stand.id) != Some(stand.number) {
                changed.push(stand.id.clone());
            }
        }
        changed.extend(gone.into_iter().cloned());
        self.to_look_at.extend(changed);
        Ok(())
    }

    /// Whether these were all.
    async fn each_in(
        &mut self,
        state: TaskState,
        task_type: Option<String>,
        mut each: impl FnMut(&mut Seen, &Task) + Send,
    ) -> Result<bool, StoreError> {
        let mut cursor: Option<Cursor> = None;
        let mut looked_at = 0;
        while looked_at < LOOKED_AT_MAX {
            let filter = ListFilter {
                state: Some(state),
                task_type: task_type.clone(),
                limit: PAGE,
                cursor,
                ..ListFilter::default()
            };
            self.api.pace().turn(PAGE_TASKS).await;
            let page = self.api.store.list(&self.caller.0.user, filter).await?;
            looked_at += PAGE;
            for task in &page.tasks {
                each(&mut self.seen, task);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is to be said next of the task at hand.
    fn event(&mut self) -> Option<Bytes> {
        let task = self.at_hand.as_ref()?;
        let Some(event) = self.seen.next_event(&self.api, task) else {
            self.at_hand = None;
            return None;
        };
        let mark = format!("-{}", clock::now().as_ms());
        let text = text(&self.api, &event, &mark).ok();
        self.seen.note(task, event.number);
        text
    }

    async fn look(&mut self) -> bool {
        let Some(id) = self.to_look_at.pop_front() else {
            return false;
        };
        self.to_look_at.retain(|other| *other != id);
        self.api.pace().turn(1).await;
        match self.api.store.get(&self.caller.0.user, &id).await {
            Ok(Found::Here(task)) => self.at_hand = Some(task),
            // Forgotten, or another user's.
            Ok(Found::Missing(_)) => self.seen.drop(&id),
            Err(error) => {
                tracing::debug!(%error, "a task that is followed cannot be read");
                self.to_look_at.push_back(id);
                return false;
            }
        }
        true
    }
}

impl Pieces for UserEvents {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if std::mem::take(&mut self.comment_is_due) {
                return Some(COMMENT);
            }
            if let Some(text) = self.event() {
                return Some(text);
            }
            if self.look().await {
                continue;
            }
            let missed = match self.pulse.wait(self.news.changed()).await {
                Woken::News(Some(id)) => {
                    self.to_look_at.push_back(id);
                    false
                }
                Woken::News(None) => true,
                Woken::Beat { comment, look } => {
                    self.comment_is_due = comment;
                    look
                }
                Woken::Over => return None,
            };
            if missed && let Err(error) = self.look_at_all().await {
                tracing::debug!(%error, "tasks that are followed cannot be read");
            }
        }
    }
}

/// Whether a client that has seen events up to some time was told how a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No,
    Perhaps,
}

impl Told {
    fn before(since: Timestamp, task: &Task) -> Told {
        let since = since.as_ms();
        match task.finished_at.map(Timestamp::as_ms) {
            None => Told::Perhaps,
            Some(at) if at + CLOCKS_APART_MS < since => Told::Yes,
            Some(at) if at - CLOCKS_APART_MS > since => Told::No,
            Some(_) => Told::Perhaps,
        }
    }
}

/// Stands for what the client has seen of a task that is to be told from anew.
const RESET: u64 = u64::MAX;

/// The last event that was sent of each task, as far as a stream remembers.
#[derive(Default)]
struct Seen {
    numbers: HashMap<TaskId, Known>,
    /// In the order in which they were first seen.
    order: VecDeque<TaskId>,
    /// When the newest task was made that the stream does not remember any more, or that was there before it.
    newest_forgotten: Option<Timestamp>,
}

struct Known {
    number: u64,
    created_at: Timestamp,
    ended: bool,
}

impl Seen {
    fn number_of(&self, id: &TaskId) -> Option<u64> {
        self.numbers.get(id).map(|known| known.number)
    }

    fn unfinished(&self) -> impl Iterator<Item = &TaskId> {
        let unfinished = self.numbers.iter().filter(|(_, known)| !known.ended);
        unfinished.map(|(id, _)| id)
    }

    fn next_event<'a>(&self, api: &Api, task: &'a Task) -> Option<Event<'a>> {
        match self.number_of(&task.id) {
            Some(seen) => task.events_after(seen).into_iter().next(),
            None if self.is_surely_new(task) => task.events_after(0).into_iter().next(),
            // It may have been told before.
            None if message::is_brought_by(api, task) => Some(task.reset_event()),
            None => Some(task.newest_event()),
        }
    }

    /// Whether no event of the task can have been sent.
    fn is_surely_new(&self, task: &Task) -> bool {
        self.newest_forgotten
            .is_none_or(|forgotten| task.created_at > forgotten)
    }

    fn note(&mut self, task: &Task, number: u64) {
        let known = Known {
            number,
            created_at: task.created_at,
            ended: task.state.is_ended() && number == task.changes.count(),
        };
        self.note_as(&task.id, known);
    }

    fn note_unfinished(&mut self, stand: &Stand, number: u64) {
        let known = Known {
            number,
            created_at: stand.created_at,
            ended: false,
        };
        self.note_as(&stand.id, known);
    }

    fn note_as(&mut self, id: &TaskId, known: Known) {
        if self.numbers.insert(id.clone(), known).is_none() {
            self.order.push_back(id.clone());
        }
        while self.order.len() > SEEN_MAX {
            if let Some(oldest) = self.order.pop_front()
                && let Some(known) = self.numbers.remove(&oldest)
            {
                self.newest_forgotten = self.newest_forgotten.max(Some(known.created_at));
            }
        }
    }

    fn drop(&mut self, id: &TaskId) {
        self.numbers.remove(id);
        self.order.retain(|other| other != id);
    }
}
