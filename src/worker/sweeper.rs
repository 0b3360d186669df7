//! Deletes stored bytes that no record names: what a crash left between storing and recording.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::blobs::{BlobError, Blobs};
use crate::results::delete;
use crate::store::{Store, StoreError};

/// Younger copies may be on their way into a record.
const AGE: Duration = Duration::from_secs(3600);
/// At the start, and then this often.
const EVERY: Duration = Duration::from_secs(3600);
/// Copies looked at in one step.
const PAGE: usize = 500;

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

pub async fn run(store: Arc<dyn Store>, blobs: Arc<dyn Blobs>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            swept = sweep(&*store, &*blobs) => match swept {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "deleted copies that no record names"),
                Err(error) => tracing::warn!(%error, "cannot sweep blob storage"),
            },
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One walk over all old copies, in the order of their names.
async fn sweep(store: &dyn Store, blobs: &dyn Blobs) -> Result<usize, SweepError> {
    let mut count = 0;
    let mut from = None;
    loop {
        let page = blobs.list_older(AGE, from.as_ref(), PAGE).await?;
        let Some(last) = page.last().cloned() else {
            return Ok(count);
        };
        let orphans = store.unowned(page).await?;
        delete(blobs, &orphans).await;
        count += orphans.len();
        from = Some(last);
    }
}
