//! Request bodies: how fast they must come, and how they are read.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::code::Code;
use super::problem::Problem;
use crate::limits::Limits;

/// How long, and how much, a body is read on behind an answer that did not need it.
const READ_ON_MAX: Duration = Duration::from_secs(10);
const READ_ON_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Reads a whole body of at most `max` bytes.
///
/// A body whose length is known to exceed that is refused before a byte of it is read.
pub async fn read_limited(body: Body, max: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(problem_of_body_error(error.as_ref())),
    }
}

/// What to answer when reading a request body fails: it was too slow, too large, or cut short.
pub fn problem_of_body_error(error: &(dyn Error + 'static)) -> Problem {
    if causes(error).any(|e| e.is::<TooSlow>()) {
        return Problem::new(Code::RequestTimeout, "The body arrived too slowly.")
            .with_header(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if causes(error).any(|e| e.is::<LengthLimitError>()) {
        return too_large();
    }
    Problem::new(
        Code::InvalidRequest,
        "The body was cut short or is not framed as HTTP says.",
    )
    .with_header(header::CONNECTION, HeaderValue::from_static("close"))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn Error + 'static)| (*e).source())
}

fn too_large() -> Problem {
    Problem::new(
        Code::PayloadTooLarge,
        "The body is larger than is allowed here.",
    )
}

/// A body that fails with [`TooSlow`] when it keeps us waiting: beyond a grace, it must have come at
/// the slowest allowed pace. Only time spent waiting counts, so that a slow disk of ours is not
/// held against the client.
///
/// Dropped before its end, it is read on behind the answer, within bounds: a client that is still
/// sending would otherwise lose the answer to a connection that closes under its hands.
pub struct PacedBody<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
{
    /// None once it is dropped.
    body: Option<B>,
    /// The client sends nothing until the body is asked for, and need not.
    awaits_continue: bool,
    pace: Pace,
    received_bytes: u64,
    waited: Duration,
    /// Since when, and until when at the longest.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    grace: Duration,
    bytes_per_second_min: u64,
}

/// A body came slower than the slowest allowed pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body arrived too slowly")
    }
}

impl Error for TooSlow {}

impl<B> PacedBody<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    /// `awaits_continue`: the request says `Expect: 100-continue`.
    pub fn of(body: B, awaits_continue: bool, limits: &Limits) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::new(PacedBody {
            body: Some(body),
            awaits_continue,
            pace: Pace {
                grace: limits.body_grace,
                bytes_per_second_min: limits.body_bytes_per_second_min.max(1),
            },
            received_bytes: 0,
            waited: Duration::ZERO,
            waiting: None,
        })
    }
}

impl Pace {
    /// How long a client may have kept us waiting for this many bytes.
    fn allowance(&self, bytes: u64) -> Duration {
        let seconds = bytes as f64 / self.bytes_per_second_min as f64;
        self.grace + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 2)
    }
}

impl<B> HttpBody for PacedBody<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        this.awaits_continue = false;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            if let Some((since, _)) = this.waiting.take() {
                this.waited += since.elapsed();
            }
            if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()?.data_ref()) {
                this.received_bytes += data.remaining() as u64;
            }
            return Poll::Ready(frame.map(|f| f.map_err(Into::into)));
        }
        let left = this
            .pace
            .allowance(this.received_bytes)
            .saturating_sub(this.waited);
        let (_, limit) = this
            .waiting
            .get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(limit.as_mut().poll(cx));
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none_left = || SizeHint::with_exact(0);
        self.body
            .as_ref()
            .map_or_else(none_left, HttpBody::size_hint)
    }
}

impl<B> Drop for PacedBody<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if body.is_end_stream() || self.awaits_continue {
            return;
        }
        // Without a runtime the process ends, and with it the connection.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(READ_ON_MAX, read_on(body)));
        }
    }
}

/// Throws away what still comes.
async fn read_on<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) {
    let mut bytes = 0;
    while bytes < READ_ON_BYTES_MAX {
        let Some(Ok(frame)) = body.frame().await else {
            return;
        };
        bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;

    fn limits(grace: Duration, bytes_per_second_min: u64) -> Limits {
        Limits {
            body_grace: grace,
            body_bytes_per_second_min: bytes_per_second_min,
            ..Limits::default()
        }
    }

    fn chunk(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_too_slow() {
        let endless = stream::iter([chunk("ab")]).chain(stream::pending());
        let limits = limits(Duration::from_millis(20), 1000);
        let body = PacedBody::of(StreamBody::new(endless), false, &limits);
        let problem = read_limited(body, 1000).await.unwrap_err();
        assert_eq!(problem.code(), Code::RequestTimeout);
    }

    #[tokio::test]
    async fn bytes_buy_time() {
        let pace = Pace {
            grace: Duration::from_secs(10),
            bytes_per_second_min: 1024,
        };
        assert_eq!(pace.allowance(0), Duration::from_secs(10));
        assert_eq!(pace.allowance(5 * 1024), Duration::from_secs(15));
        assert!(pace.allowance(u64::MAX) > Duration::from_secs(1 << 40));
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_is_malformed() {
        let cut = [chunk("ab"), Err(std::io::ErrorKind::UnexpectedEof.into())];
        let body = StreamBody::new(stream::iter(cut));
        let body = PacedBody::of(body, false, &Limits::default());
        let problem = read_limited(body, 1000).await.unwrap_err();
        assert_eq!(problem.code(), Code::InvalidRequest);
    }

    #[tokio::test]
    async fn too_much_is_refused_whether_or_not_its_length_is_known() {
        let known = Body::from("abc");
        let problem = read_limited(known, 2).await.unwrap_err();
        assert_eq!(problem.code(), Code::PayloadTooLarge);
        let unknown = Body::new(StreamBody::new(stream::iter([chunk("ab"), chunk("c")])));
        let problem = read_limited(unknown, 2).await.unwrap_err();
        assert_eq!(problem.code(), Code::PayloadTooLarge);
        assert_eq!(read_limited(Body::from("abc"), 3).await.unwrap(), "abc");
    }
}
