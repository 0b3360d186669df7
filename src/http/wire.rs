//! The socket of one connection, and what is happening on it.
//!
//! hyper says nothing to a client whose head is late, and refuses a bad head without a body. So this
//! watches the bytes that pass: it knows when a head is awaited, and keeps hyper's own refusals off the
//! wire, for [`super::connection`] to answer in the form that every refusal has.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::limits::Limits;

/// How long a client may take nothing of an answer that waits for it.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);

/// What a connection is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A head is awaited: the first one, or one that has begun to arrive.
    Head,
    /// A request is with its handler, or its answer is being made.
    Request,
    /// The answer is complete, but not yet handed to the socket.
    Answered,
    /// Between requests.
    Idle,
}

/// Why a connection has been waited for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    Head,
    Idle,
    Write,
}

/// What is known of one connection; shared by its socket, its requests and its watchdog.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    stage: Stage,
    since: Instant,
    write_blocked_since: Option<Instant>,
    /// The status of hyper's own refusal of a head.
    refused: Option<StatusCode>,
    peer_has_closed: bool,
}

impl Progress {
    pub fn new() -> Self {
        Progress(Arc::new(Mutex::new(State {
            stage: Stage::Head,
            since: Instant::now(),
            write_blocked_since: None,
            refused: None,
            peer_has_closed: false,
        })))
    }

    pub fn request_begins(&self) {
        self.state().stage = Stage::Request;
    }

    pub fn answer_ends(&self) {
        let mut state = self.state();
        if state.stage == Stage::Request {
            state.stage = Stage::Answered;
        }
    }

    pub fn refused(&self) -> Option<StatusCode> {
        self.state().refused
    }

    pub fn peer_has_closed(&self) -> bool {
        self.state().peer_has_closed
    }

    /// When to give up on the connection, and what for; none while only we are at work.
    pub fn deadline(&self, limits: &Limits) -> Option<(Instant, Overdue)> {
        let state = self.state();
        let write = state
            .write_blocked_since
            .map(|since| (since + WRITE_STALL_MAX, Overdue::Write));
        let read = match state.stage {
            Stage::Head => Some((state.since + limits.header_timeout, Overdue::Head)),
            Stage::Idle => Some((state.since + limits.keep_alive_idle, Overdue::Idle)),
            Stage::Request | Stage::Answered => None,
        };
        write.or(read)
    }

    fn received(&self, bytes: usize) {
        let mut state = self.state();
        if bytes == 0 {
            state.peer_has_closed = true;
        } else if state.stage == Stage::Idle {
            state.stage = Stage::Head;
            state.since = Instant::now();
        }
    }

    /// hyper speaks unasked only to refuse a head. Returns whether these bytes do.
    fn refuses(&self, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let unasked = matches!(state.stage, Stage::Head | Stage::Idle);
        if unasked && state.refused.is_none() {
            state.refused = Some(status_of(bytes).unwrap_or(StatusCode::BAD_REQUEST));
        }
        unasked
    }

    fn written<T>(&self, outcome: &Poll<io::Result<T>>) {
        let mut state = self.state();
        match outcome {
            Poll::Pending => {
                state.write_blocked_since.get_or_insert_with(Instant::now);
            }
            Poll::Ready(Ok(_)) => state.write_blocked_since = None,
            Poll::Ready(Err(_)) => state.peer_has_closed = true,
        }
    }

    fn flushed(&self) {
        let mut state = self.state();
        if state.stage == Stage::Answered {
            state.stage = Stage::Idle;
            state.since = Instant::now();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status in `HTTP/1.1 431 …`.
fn status_of(head: &[u8]) -> Option<StatusCode> {
    StatusCode::from_bytes(head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()
}

/// A socket that notes its [`Progress`]. It is never shut down from above: the connection does that
/// itself, after its last word.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    progress: Progress,
}

impl Wire {
    pub fn new(stream: TcpStream, progress: Progress) -> Self {
        Wire { stream, progress }
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if outcome.is_ready() {
            self.progress.received(buffer.filled().len() - before);
        }
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.refuses(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.written(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.refuses(slices.first().map_or(&[], |s| s)) {
            return Poll::Ready(Ok(slices.iter().map(|s| s.len()).sum()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress.written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = outcome {
            self.progress.flushed();
        }
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_idle_connections_have_deadlines_and_requests_have_none() {
        let limits = Limits::default();
        let overdue = |progress: &Progress| progress.deadline(&limits).map(|(_, why)| why);
        let progress = Progress::new();
        assert_eq!(overdue(&progress), Some(Overdue::Head));
        progress.request_begins();
        assert_eq!(overdue(&progress), None);
        progress.written(&Poll::<io::Result<()>>::Pending);
        assert_eq!(overdue(&progress), Some(Overdue::Write));
        progress.written(&Poll::Ready(Ok(())));
        progress.flushed();
        assert_eq!(overdue(&progress), None);
        progress.answer_ends();
        progress.flushed();
        assert_eq!(overdue(&progress), Some(Overdue::Idle));
        progress.received(1);
        assert_eq!(overdue(&progress), Some(Overdue::Head));
    }

    #[test]
    fn only_unasked_answers_are_refusals() {
        let progress = Progress::new();
        progress.request_begins();
        assert!(!progress.refuses(b"HTTP/1.1 400 Bad Request\r\n"));
        let progress = Progress::new();
        assert!(progress.refuses(b"HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert_eq!(progress.refused().map(|s| s.as_u16()), Some(431));
    }
}
