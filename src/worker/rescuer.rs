//! Does what time has made due: starts scheduled tasks and retries, returns expired leases, expires
//! what was kept long enough. Every process does it; the store sees to it that they do not collide.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::domain::timestamp::Timestamp;
use crate::failpoints::FailPoint;
use crate::results::delete;
use crate::store::{Rescued, Store};

/// Looks again after this at the latest, whatever was said to be due.
const POLL: Duration = Duration::from_secs(1);
/// The store rounds to milliseconds, and may call something due a moment later than we do.
const PAUSE_MIN: Duration = Duration::from_millis(2);

pub async fn run(store: Arc<dyn Store>, blobs: Arc<dyn Blobs>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match store.rescue().await {
            Ok(rescued) => {
                if rescued.queued + rescued.leases_expired > 0 {
                    FailPoint::AfterRescue.reached();
                }
                delete(&*blobs, &rescued.disowned).await;
                if rescued.more {
                    continue;
                }
                pause(&rescued)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for what is due");
                POLL
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = store.signals().due() => {}
        }
    }
}

fn pause(rescued: &Rescued) -> Duration {
    match rescued.next_due_at {
        Some(at) => at.since(now()).clamp(PAUSE_MIN, POLL),
        None => POLL,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}
