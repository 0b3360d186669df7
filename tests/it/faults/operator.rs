//! Somebody who looks after a store that may lose what it acknowledged, and accepts that it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::support::Setup;

const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// At work until this is dropped.
pub struct Operator {
    accepted: Arc<AtomicU64>,
    at_work: AbortHandle,
}

impl Operator {
    pub fn of(store: &str) -> Operator {
        let setup = Setup::new().env("JUSTONCE_STORE", store);
        let accepted = Arc::new(AtomicU64::new(0));
        let count = accepted.clone();
        let looks = tokio::spawn(async move {
            loop {
                sleep(LOOKS_EVERY).await;
                let mut doctor = setup.command();
                let looked = doctor.args(["doctor", "--accept-state-loss"]).output();
                if let Ok(output) = looked.await
                    && output.stdout.starts_with(b"Accepted")
                {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Operator {
            accepted,
            at_work: looks.abort_handle(),
        }
    }

    /// How often replicas have said that they miss something.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.at_work.abort();
    }
}
