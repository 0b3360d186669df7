//! Waiting: for a signal where there is one, else by looking again and again until a deadline that only
//! a broken service meets.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Far beyond what anything here takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_AGAIN: Duration = Duration::from_millis(15);

/// Looks until `look` gives something; fails with `what` at the deadline.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(LOOK_AGAIN).await;
    }
}

/// The value of `future`, which must come before the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(PATIENCE, future).await else {
        panic!("waited in vain for {what}");
    };
    value
}
