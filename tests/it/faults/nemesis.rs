//! Lets one thing after the other go wrong.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::fault::{Fault, Plan};
use super::stage::Stage;

/// What went wrong so far, and when.
#[derive(Clone, Default)]
pub struct Chronicle(Arc<Mutex<Vec<(Duration, Fault)>>>);

impl Chronicle {
    fn note(&self, began: Instant, fault: Fault) {
        self.0.lock().unwrap().push((began.elapsed(), fault));
    }

    pub fn faults(&self) -> Vec<(Duration, Fault)> {
        self.0.lock().unwrap().clone()
    }
}

/// When there have been faults enough.
#[derive(Clone, Copy, Debug)]
pub enum Enough {
    Faults(usize),
    Time(Duration),
    /// As long as there are clients.
    Clients,
}

/// Ends early once `over` fires. Each fault is mended before the next.
pub async fn torment(
    stage: &Stage,
    plan: Plan,
    enough: Enough,
    over: &CancellationToken,
    chronicle: &Chronicle,
) {
    let began = Instant::now();
    for (count, fault) in plan.enumerate() {
        let is_enough = match enough {
            Enough::Faults(faults) => count >= faults,
            Enough::Time(time) => began.elapsed() >= time,
            Enough::Clients => false,
        };
        if is_enough || over.is_cancelled() {
            return;
        }
        tokio::select! {
            () = sleep(fault.after) => {}
            () = over.cancelled() => return,
        }
        chronicle.note(began, fault);
        stage.suffer(fault).await;
    }
}
