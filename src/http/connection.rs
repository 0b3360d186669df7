//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::body::PacedBody;
use super::host;
use super::refusal::Refusal;
use super::wire::{Overdue, Progress, Wire};
use crate::limits::Limits;

/// A client that still sends when it is answered would lose the answer to a reset if the socket were
/// closed at once; so what it sends is thrown away, within these bounds.
const LINGER_MAX: Duration = Duration::from_secs(10);
const LINGER_IDLE_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What hyper may read ahead of a request, or hold of an answer, in bytes. Heads have their own bound;
/// this one lets large files come in large pieces.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The other end of the connection, in the extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// What all connections have in common.
pub struct Connections {
    router: Router,
    limits: Arc<Limits>,
    base_path: Arc<str>,
    protocol: http1::Builder,
    /// Fires when requests under way are the last ones.
    draining: CancellationToken,
}

impl Connections {
    pub fn new(
        router: Router,
        limits: &Limits,
        base_path: &str,
        draining: CancellationToken,
    ) -> Self {
        let mut protocol = http1::Builder::new();
        protocol
            .header_read_timeout(None)
            .max_headers(limits.header_fields_max)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MAX));
        Connections {
            router,
            limits: Arc::new(limits.clone()),
            base_path: base_path.into(),
            protocol,
            draining,
        }
    }

    /// Serves one connection to its end.
    pub async fn run(&self, stream: TcpStream, peer: SocketAddr) {
        let progress = Progress::begin();
        let requests = Requests {
            router: self.router.clone(),
            limits: self.limits.clone(),
            base_path: self.base_path.clone(),
            peer: PeerAddress(peer),
            progress: progress.clone(),
        };
        let wire = Wire::new(stream, progress.clone());
        let mut connection = self.protocol.serve_connection(TokioIo::new(wire), requests);
        let end = self.drive(&mut connection, &progress).await;
        let mut stream = connection.into_parts().io.into_inner().into_stream();

        let last_word = match end {
            End::Overdue(Overdue::Write) => return,
            End::Overdue(Overdue::Idle) => None,
            End::Overdue(Overdue::Head) => Some(Refusal::late_head(&self.base_path)),
            End::Done { unreadable } => progress
                .refused()
                .or(unreadable.then_some(StatusCode::BAD_REQUEST))
                .map(|status| Refusal::bad_head(&self.base_path, status)),
        };
        if let Some(refusal) = last_word {
            let bytes = refusal.into_bytes();
            let write = timeout(LINGER_IDLE_MAX, stream.write_all(&bytes));
            if !matches!(write.await, Ok(Ok(()))) {
                return;
            }
        }
        if !progress.peer_has_closed() {
            // Whatever goes wrong now, the connection is over.
            let _ = timeout(LINGER_MAX, linger(stream)).await;
        }
    }

    /// Polls the connection, its deadlines and the drain in one task, so that every step of the
    /// connection is followed by a look at its deadline.
    async fn drive(
        &self,
        connection: &mut http1::Connection<TokioIo<Wire>, Requests>,
        progress: &Progress,
    ) -> End {
        let mut alarm = pin!(sleep_until(Instant::now() + self.limits.header_timeout));
        let mut draining = pin!(self.draining.cancelled());
        let mut is_last = false;
        poll_fn(|cx| {
            if !is_last && draining.as_mut().poll(cx).is_ready() {
                is_last = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            if let Poll::Ready(outcome) = Pin::new(&mut *connection).poll(cx) {
                let unreadable = outcome.is_err_and(|error| error.is_parse());
                return Poll::Ready(End::Done { unreadable });
            }
            let Some((deadline, why)) = progress.deadline(&self.limits) else {
                return Poll::Pending;
            };
            // Deadlines mostly move on: the alarm is set back only once it has rung.
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            while alarm.as_mut().poll(cx).is_ready() {
                if deadline <= Instant::now() {
                    return Poll::Ready(End::Overdue(why));
                }
                alarm.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

enum End {
    Done {
        /// What arrived was not HTTP/1.1.
        unreadable: bool,
    },
    Overdue(Overdue),
}

/// Ends our side, and reads until the client ends its own.
async fn linger(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut thrown_away = vec![0; 16 * 1024];
    let mut bytes = 0;
    while bytes < LINGER_BYTES_MAX {
        match timeout(LINGER_IDLE_MAX, stream.read(&mut thrown_away)).await {
            Ok(Ok(read)) if read > 0 => bytes += read as u64,
            _ => break,
        }
    }
    Ok(())
}

/// Hands the requests of one connection to the router.
struct Requests {
    router: Router,
    limits: Arc<Limits>,
    base_path: Arc<str>,
    peer: PeerAddress,
    progress: Progress,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.progress.request_begins();
        let progress = self.progress.clone();
        let answer = |response: Response<Body>| response.map(|body| Answer { body, progress });
        if !host::is_named(&request) {
            let response = Refusal::bad_host(&self.base_path).into_response();
            return Box::pin(std::future::ready(Ok(answer(response))));
        }
        let expects = request.headers().get(header::EXPECT);
        let awaits_continue =
            expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let mut request = request.map(|body| PacedBody::of(body, awaits_continue, &self.limits));
        request.extensions_mut().insert(self.peer);
        let response = self.router.clone().call(request);
        Box::pin(async move { response.await.map(answer) })
    }
}

/// The body of an answer, which says when it is over.
struct Answer {
    body: Body,
    progress: Progress,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.progress.answer_ends();
    }
}
