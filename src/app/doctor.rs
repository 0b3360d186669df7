//! What is wrong with the store, for an operator whose service does not serve.

use anyhow::{Context, bail};

use crate::config::Settings;
use crate::config::storage::StoreChoice;
use crate::store::redis::{self, Options};

use super::wiring;

/// What is known of the store, line by line, and whether the service can serve with it.
pub struct Report {
    pub lines: Vec<String>,
    pub is_well: bool,
}

pub fn examine(settings: &Settings) -> anyhow::Result<Report> {
    block_on(async { of_redis(&redis_options(settings)?).await })
}

/// Takes the loss that replicas have reported for granted. Returns how many have.
pub fn accept_state_loss(settings: &Settings) -> anyhow::Result<u64> {
    let options = redis_options(settings)?;
    block_on(async { Ok(redis::accept_loss(&options.address, &options.prefix).await?) })
}

async fn of_redis(options: &Options) -> anyhow::Result<Report> {
    let found = redis::diagnose(options).await?;
    let mut lines = vec![format!("{:?}, under {:?}", options.address, options.prefix)];
    lines.push(match &found.schema {
        Some(schema) => format!("schema: {schema}"),
        None => "nothing is on record: no replica has begun, or everything is gone".to_owned(),
    });
    lines.push(match &found.fault {
        Some(fault) => format!("settings: {fault}"),
        None => format!("settings: well, durability {}", found.durability.name()),
    });
    if found.losses.is_empty() {
        lines.push("state: no replica misses anything".to_owned());
    } else {
        let replicas: Vec<_> = found.losses.keys().map(String::as_str).collect();
        lines.push(format!(
            "state: replicas miss what Redis has acknowledged to them ({}). Restore it, or accept that it is \
             gone with --accept-state-loss",
            replicas.join(", ")
        ));
    }
    Ok(Report {
        lines,
        is_well: found.schema.is_some() && found.fault.is_none() && found.losses.is_empty(),
    })
}

fn redis_options(settings: &Settings) -> anyhow::Result<Options> {
    match &settings.storage.store {
        StoreChoice::Redis(choice) => wiring::redis_options(choice, settings, None),
        StoreChoice::Embedded | StoreChoice::Memory => {
            bail!("only a store on Redis can be examined: name it with REDIS_URL or --redis-url")
        }
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}
