//! Following tasks: streams of server-sent events (the HTML standard, section 9.2).
//!
//! A stream holds one task at a time, and asks the store for it anew only when its client has taken what
//! was written before: whoever reads slowly is told less often, and costs no memory. All streams of a replica
//! take turns in asking, so that many followers cost those who submit no more than a few do. The store keeps the
//! newest changes of each task, so that what happened meanwhile is still told one by one; where it does
//! not know them any more, the stream says `reset`.

mod message;
pub mod of_task;
pub mod of_user;
pub mod pace;
mod pulse;
pub mod survey;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api::Api;
use super::code::Code;
use super::problem::Problem;
use crate::domain::event::Event;
use crate::task_view::TaskView;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies of the nginx family hold answers back otherwise.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Keeps the connection open where silence would close it.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// A place among the streams that are open. A replica that drains gives one, too: browsers ask no more after a
/// refusal, and after a stream that ends at once they come back, to another replica.
fn seat(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::<Semaphore>::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| {
            Problem::new(
                Code::Overloaded,
                "As many streams of events are open as this replica may have (event_streams_max).",
            )
        })
}

/// The id of the last event that the client has seen. An empty one is none.
fn last_event_id(headers: &HeaderMap) -> Option<&[u8]> {
    let id = headers.get(LAST_EVENT_ID)?.as_bytes();
    (!id.is_empty()).then_some(id)
}

/// What gives the pieces of a stream, one at a time; none at its end.
trait Pieces: Send + 'static {
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

fn respond(pieces: impl Pieces) -> Response {
    let texts = stream::unfold(pieces, async |mut pieces| {
        let text = pieces.next().await?;
        Some((Ok::<_, Infallible>(text), pieces))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (ACCEL_BUFFERING, "no"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, Body::from_stream(texts)).into_response()
}

/// Nothing more will come: clients of this kind connect anew after any other answer.
fn nothing_more() -> Response {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (StatusCode::NO_CONTENT, [no_store]).into_response()
}

/// One event as it goes over the wire. `id` ends with `mark`.
fn text(api: &Api, event: &Event<'_>, mark: &str) -> Result<Bytes, Problem> {
    let task = TaskView::of(api, &event.task).to_bytes()?;
    let name = message::name(api, event);
    let head = format!("event: {name}\nid: {}{mark}\n", event.number);
    let mut text = Vec::with_capacity(head.len() + task.len() + 16);
    text.extend(head.as_bytes());
    // Results are as their runners gave them, and may hold line ends between their values.
    for line in task.split(|byte| matches!(byte, b'\n' | b'\r')) {
        text.extend(b"data: ");
        text.extend(line);
        text.push(b'\n');
    }
    text.push(b'\n');
    Ok(text.into())
}
