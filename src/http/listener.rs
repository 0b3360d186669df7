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
