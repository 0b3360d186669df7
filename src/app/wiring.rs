//! Which adapter stands behind which port.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::blobs::local::LocalBlobs;
use crate::config::Settings;
use crate::http;
use crate::http::api::Api;
use crate::http::listener::{self, Shutdown};
use crate::store::embedded::{EmbeddedStore, Location};
use crate::store::{Durability, Store};

/// Files need not survive what the records that name them do not.
pub fn open_blobs(folder: &Path, settings: &Settings) -> anyhow::Result<Arc<dyn Blobs>> {
    let fsync = settings.storage.durability() >= Durability::Fsync;
    let blobs = LocalBlobs::open(folder.to_owned(), fsync)
        .with_context(|| format!("cannot keep files in {}", folder.display()))?;
    Ok(Arc::new(blobs))
}

/// No folder: in memory.
pub fn open_store(folder: Option<&Path>, settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let location = folder.map_or(Location::Memory, |folder| {
        Location::Folder(folder.to_owned())
    });
    let store = EmbeddedStore::open(&location, settings.limits.queue_tasks_max)?;
    Ok(Arc::new(store))
}

/// Serves until `stop` fires and the requests under way have ended, or the grace is over.
pub async fn serve_http(listener: TcpListener, api: Api, stop: CancellationToken, grace: Duration) {
    let (limits, base_path) = (api.limits.clone(), api.edge.base_path.clone());
    let shutdown = Shutdown { stop, grace };
    let dropped = listener::serve(listener, http::router(api), &limits, &base_path, shutdown).await;
    if dropped > 0 {
        tracing::warn!(
            connections = dropped,
            "requests were cut off: the grace is over"
        );
    }
}

/// The OpenAPI document as JSON.
pub fn openapi() -> anyhow::Result<String> {
    http::openapi()
        .to_pretty_json()
        .context("the OpenAPI document cannot be written")
}
