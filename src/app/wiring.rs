//! Which adapter stands behind which port.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::blobs::local::LocalBlobs;
use crate::config::defaults::Defaults;
use crate::config::storage::{RedisChoice, StoreChoice};
use crate::config::{self, Settings};
use crate::http;
use crate::http::api::Api;
use crate::http::listener::{self, Shutdown};
use crate::sandbox::{self, Sandbox};
use crate::store::embedded::{EmbeddedStore, Location};
use crate::store::redis::{Address, Assumed, Options, RedisStore, Trust};
use crate::store::{Durability, Store};

/// Files need not survive what the records that name them do not.
pub fn open_blobs(folder: &Path, settings: &Settings) -> anyhow::Result<Arc<dyn Blobs>> {
    let fsync = settings.storage.durability() >= Durability::Fsync;
    let blobs = LocalBlobs::open(folder.to_owned(), fsync)
        .with_context(|| format!("cannot keep files in {}", folder.display()))?;
    Ok(Arc::new(blobs))
}

pub async fn open_store(
    folder: Option<&Path>,
    settings: &Settings,
) -> anyhow::Result<Arc<dyn Store>> {
    if let StoreChoice::Redis(choice) = &settings.storage.store {
        let options = redis_options(choice, settings, folder)?;
        return Ok(Arc::new(RedisStore::open(options).await?));
    }
    let location = folder.map_or(Location::Memory, |folder| {
        Location::Folder(folder.to_owned())
    });
    let queue_tasks_max = settings.limits.queue_tasks_max;
    Ok(Arc::new(EmbeddedStore::open(&location, queue_tasks_max)?))
}

pub fn redis_options(
    choice: &RedisChoice,
    settings: &Settings,
    folder: Option<&Path>,
) -> anyhow::Result<Options> {
    let mut address = Address::parse(&choice.url)
        .map_err(|why| anyhow!("the address of Redis cannot be read: {why}"))?;
    if let Some(path) = &choice.ca {
        let trusting = |pem| address.trusting(Trust::only(pem)?);
        let pem = std::fs::read(path).map_err(|error| error.to_string());
        address = pem
            .and_then(trusting)
            .map_err(|why| anyhow!("JUSTONCE_REDIS_CA, {}: {why}", path.display()))?;
    }
    let assumed = choice.assume.as_deref().unwrap_or_default();
    Ok(Options {
        prefix: choice.prefix.clone(),
        assumed: Assumed::parse(assumed)
            .context("JUSTONCE_REDIS_ASSUME takes the words noeviction and fsync")?,
        durability_min: settings.durability_min,
        queue_tasks_max: settings.limits.queue_tasks_max,
        folder: folder.map(Path::to_owned),
        ..Options::at(address)
    })
}

/// Parsers may give as much as a result may have.
pub fn sandbox(settings: &Settings) -> anyhow::Result<Sandbox> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let limits = sandbox::Limits {
        output_bytes: settings.limits.result_bytes_max,
        ..sandbox::Limits::default()
    };
    Ok(Sandbox::new(program, limits))
}

/// The names of the layers that protect this machine from parsers, as health shows them.
pub async fn sandbox_layers(sandbox: &Sandbox) -> Vec<String> {
    match sandbox.layers().await {
        Ok(layers) => layers
            .active
            .iter()
            .map(|layer| layer.name().to_owned())
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "the sandbox cannot be tried");
            Vec::new()
        }
    }
}

/// What the workers of this process are called: the machine, the process, and what no other start has.
pub fn worker_name() -> String {
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    format!("{machine}-{}-{:08x}", std::process::id(), fastrand::u32(..))
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

/// The OpenAPI document as JSON, with the built-in task types.
pub fn openapi() -> anyhow::Result<String> {
    let types = config::builtin::all(&Defaults::default())?;
    serde_json::to_string_pretty(&http::document(&types))
        .context("the OpenAPI document cannot be written")
}
