//! Says every second what the workers of this process do, so that every replica can tell of all.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Store;
use crate::worker_gauge::WorkerGauge;

const EVERY: Duration = Duration::from_secs(1);

pub async fn run(store: Arc<dyn Store>, gauge: WorkerGauge, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = store.muster(gauge.report()).await {
            tracing::debug!(%error, "other replicas do not hear of this one");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
