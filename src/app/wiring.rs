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
use crate::http::api::Api;
use crate::store::{Durability, Store};

/// Files need not survive what the records that name them do not.
pub fn open_blobs(folder: &Path, settings: &Settings) -> anyhow::Result<Arc<dyn Blobs>> {
    let fsync = settings.storage.durability() >= Durability::Fsync;
    let blobs = LocalBlobs::open(folder.to_owned(), fsync)
        .with_context(|| format!("cannot keep files in {}", folder.display()))?;
    Ok(Arc::new(blobs))
}

pub async fn open_store(
    _folder: Option<&Path>,
    _settings: &Settings,
) -> anyhow::Result<Arc<dyn Store>> {
    anyhow::bail!("the embedded store is not there yet")
}

/// Serves until `stop` fires and the requests under way have ended, or the grace is over.
pub async fn serve_http(
    listener: TcpListener,
    _api: Api,
    stop: CancellationToken,
    _grace: Duration,
) {
    stop.cancelled().await;
    drop(listener);
}

/// The OpenAPI document as JSON.
pub fn openapi() -> anyhow::Result<String> {
    anyhow::bail!("the OpenAPI document is not there yet")
}
