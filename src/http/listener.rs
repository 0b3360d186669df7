//! The accept loop. `axum::serve` has no time-outs and no bound on connections, so it is our own.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connections;
use crate::limits::Limits;

/// After an accept that failed for want of something (file descriptors, memory), which others may
/// give back meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// When and how serving ends.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Fires when no more connections are accepted, and requests under way are the last ones.
    pub stop: CancellationToken,
    /// How long those may take; then they are dropped.
    pub grace: Duration,
}

/// Serves until the shutdown is over. Returns how many connections had to be dropped.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    base_path: &str,
    shutdown: Shutdown,
) -> usize {
    let connections = Arc::new(Connections::new(
        router,
        limits,
        base_path,
        shutdown.stop.clone(),
    ));
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let open = TaskTracker::new();
    let drop_all = CancellationToken::new();

    let accept = async {
        // The semaphore is never closed.
        while let Ok(place) = room.clone().acquire_owned().await {
            let (stream, peer) = accept(&listener).await;
            let connections = connections.clone();
            let dropped = drop_all.clone().cancelled_owned();
            open.spawn(async move {
                tokio::select! {
                    () = connections.run(stream, peer) => {}
                    () = dropped => {}
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown.stop.cancelled() => {}
    }

    drop(listener);
    open.close();
    if timeout(shutdown.grace, open.wait()).await.is_ok() {
        return 0;
    }
    let left = open.len();
    drop_all.cancel();
    open.wait().await;
    left
}

async fn accept(listener: &TcpListener) -> (TcpStream, std::net::SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and written whole: waiting to fill a packet only adds latency.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection ended before it began");
                }
                return (stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted now");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of a connection that ended in the queue say nothing about the next one.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Body;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::http::body::read_limited;
    use crate::http::problem::Problem;

    const SHORT: Duration = Duration::from_millis(100);
    /// Tests that hang should fail instead.
    const PATIENCE: Duration = Duration::from_secs(20);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        served: JoinHandle<usize>,
        /// Lets `/wait` answer.
        go_on: Arc<Notify>,
        /// `/wait` has begun.
        arrived: Arc<Notify>,
    }

    async fn start(limits: Limits, grace: Duration) -> Server {
        let (go_on, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let wait = {
            let (go_on, arrived) = (go_on.clone(), arrived.clone());
            async move || {
                arrived.notify_one();
                go_on.notified().await;
                "waited"
            }
        };
        let echo = async |body: Body| -> Result<_, Problem> { read_limited(body, 100).await };
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/echo", post(echo))
            .route("/wait", get(wait));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let shutdown = Shutdown {
            stop: stop.clone(),
            grace,
        };
        let served =
            tokio::spawn(async move { serve(listener, router, &limits, "", shutdown).await });
        Server {
            address,
            stop,
            served,
            go_on,
            arrived,
        }
    }

    async fn start_with(limits: Limits) -> Server {
        start(limits, PATIENCE).await
    }

    impl Server {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Sends bytes, and reads until the server closes.
        async fn tell(&self, bytes: &[u8]) -> String {
            let mut stream = self.connect().await;
            stream.write_all(bytes).await.unwrap();
            rest_of(&mut stream).await
        }
    }

    async fn rest_of(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut text)).await;
        read.expect("the server closes").unwrap();
        String::from_utf8(text).unwrap()
    }

    async fn read_until(stream: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(end) {
            let byte = timeout(PATIENCE, stream.read_u8()).await;
            text.push(byte.expect("an answer").expect("an answer"));
        }
        String::from_utf8(text).unwrap()
    }

    fn is_problem(answer: &str, status: &str) -> bool {
        let document = format!("\"status\":{}", &status[..3]);
        answer.starts_with(&format!("HTTP/1.1 {status}\r\n"))
            && answer.contains("application/problem+json")
            && answer.contains("x-request-id: ")
            && answer.contains("connection: close")
            && answer.contains(&document)
    }

    #[tokio::test]
    async fn silent_and_dribbling_connections_are_told_that_they_are_late() {
        let server = start_with(Limits {
            header_timeout: SHORT,
            ..Limits::default()
        })
        .await;
        for begun in [
            &b""[..],
            b"\r\n",
            b"GE",
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"PRI * HT",
        ] {
            let answer = server.tell(begun).await;
            assert!(is_problem(&answer, "408 Request Timeout"), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_without_a_word() {
        let server = start_with(Limits {
            keep_alive_idle: SHORT,
            ..Limits::default()
        })
        .await;
        let answer = server.tell(GET).await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_that_begins_late_in_an_idle_connection_is_late_by_itself() {
        let server = start_with(Limits {
            header_timeout: SHORT,
            ..Limits::default()
        })
        .await;
        let mut stream = server.connect().await;
        stream.write_all(GET).await.unwrap();
        read_until(&mut stream, "hello").await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let answer = rest_of(&mut stream).await;
        assert!(is_problem(&answer, "408 Request Timeout"), "{answer}");
    }

    #[tokio::test]
    async fn one_host_and_no_other_number_of_them() {
        let server = start_with(Limits::default()).await;
        for bad in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",
        ] {
            let answer = server.tell(bad).await;
            assert!(is_problem(&answer, "400 Bad Request"), "{answer}");
            assert!(answer.contains("invalid-request"), "{answer}");
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_refused_with_a_problem() {
        let server = start_with(Limits::default()).await;
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(64));
        let large = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n",
            "b".repeat(40_000)
        );
        for (bad, status) in [
            ("hello\r\n\r\n", "400 Bad Request"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400 Bad Request"),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n",
                "400 Bad Request",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                "400 Bad Request",
            ),
            (&many, "431 Request Header Fields Too Large"),
            (&large, "431 Request Header Fields Too Large"),
        ] {
            let answer = server.tell(bad.as_bytes()).await;
            assert!(is_problem(&answer, status), "{answer}");
        }
    }

    #[tokio::test]
    async fn pipelined_requests_are_all_answered() {
        let server = start_with(Limits::default()).await;
        let last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = server.tell(&[GET, GET, last].concat()).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    }

    #[tokio::test]
    async fn two_lengths_get_one_answer() {
        let server = start_with(Limits::default()).await;
        for head in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
        ] {
            let first = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n0\r\n\r\n");
            let answer = server.tell(&[first.as_bytes(), GET].concat()).await;
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_slow_body_is_late_and_a_short_one_malformed() {
        let server = start_with(Limits {
            body_grace: SHORT,
            ..Limits::default()
        })
        .await;
        let begun = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab";
        let answer = server.tell(begun).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        let mut stream = server.connect().await;
        stream.write_all(begun).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest_of(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_still_sends_sees_its_early_answer() {
        let server = start_with(Limits::default()).await;
        let bytes = 8 * 1024 * 1024;
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n");
        let answer = server
            .tell(&[head.into_bytes(), vec![b'x'; bytes]].concat())
            .await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_asks_first_need_not_send_what_is_refused() {
        let server = start_with(Limits::default()).await;
        let ask = |bytes: usize| {
            let head =
                "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close";
            format!("{head}\r\nContent-Length: {bytes}\r\n\r\n")
        };
        let answer = server.tell(ask(1000).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let mut stream = server.connect().await;
        stream.write_all(ask(2).as_bytes()).await.unwrap();
        let go_on = read_until(&mut stream, "\r\n\r\n").await;
        assert!(go_on.starts_with("HTTP/1.1 100"), "{go_on}");
        stream.write_all(b"ab").await.unwrap();
        let answer = rest_of(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_drain_ends_idle_connections_and_waits_for_requests() {
        let server = start_with(Limits::default()).await;
        let mut idle = server.connect().await;
        idle.write_all(GET).await.unwrap();
        read_until(&mut idle, "hello").await;
        let mut silent = server.connect().await;
        let mut busy = server.connect().await;
        busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        server.arrived.notified().await;
        server.stop.cancel();
        assert_eq!(rest_of(&mut idle).await, "");
        assert_eq!(rest_of(&mut silent).await, "");
        server.go_on.notify_one();
        let answer = rest_of(&mut busy).await;
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(answer.ends_with("waited"), "{answer}");
        drop((idle, silent, busy));
        assert_eq!(server.served.await.unwrap(), 0);
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn a_drain_drops_what_takes_too_long() {
        let server = start(Limits::default(), SHORT).await;
        let mut busy = server.connect().await;
        busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        server.arrived.notified().await;
        server.stop.cancel();
        assert_eq!(server.served.await.unwrap(), 1);
        assert_eq!(rest_of(&mut busy).await, "");
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_wait_their_turn() {
        let server = start_with(Limits {
            connections_max: 1,
            ..Limits::default()
        })
        .await;
        let mut first = server.connect().await;
        first.write_all(GET).await.unwrap();
        read_until(&mut first, "hello").await;
        let mut second = server.connect().await;
        second.write_all(GET).await.unwrap();
        let early = timeout(SHORT, second.read_u8()).await;
        assert!(early.is_err(), "the second waits for the first");
        drop(first);
        read_until(&mut second, "hello").await;
    }
}
