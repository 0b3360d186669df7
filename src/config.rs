//! What the operator wants: built-in defaults, then `justonce.toml`, then the environment, then the
//! command line; later ones win. What is unknown, not built yet or in contradiction refuses to start.

pub mod builtin;
pub mod defaults;
pub mod edge;
pub mod error;
pub mod file;
pub mod layer;
pub mod limits_table;
pub mod outside;
pub mod quotas;
pub mod retention_table;
pub mod seconds;
pub mod setting;
pub mod storage;
pub mod type_table;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::task_type::TaskTypes;
use crate::domain::webhook::WebhookSecret;
use crate::egress::rules::Rules;
use crate::http::api::{AuthMode, Edge};
use crate::http::api_key::PresentedKey;
use crate::limits::Limits;
use crate::store::Durability;
use defaults::Defaults;
use error::ConfigError;
use file::File;
use layer::{Given, Layer, Layers};
use outside::Mail;
use seconds::Seconds;
use storage::Storage;

/// Everything that can be set, read and found consistent.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub storage: Storage,
    /// What acknowledgements must survive at least.
    pub durability_min: Durability,
    /// Attempts at a time of work that uses the processor; 0: this process runs none at all.
    pub workers: usize,
    pub edge: Edge,
    pub drain: Drain,
    /// The first admin API key, as it was given.
    pub bootstrap_key: Option<String>,
    /// What requests that go out may reach.
    pub egress: Rules,
    /// None: no e-mail is sent.
    pub mail: Option<Mail>,
    /// None: one is made at the first start.
    pub webhook_secret: Option<WebhookSecret>,
    pub limits: Limits,
    pub types: TaskTypes,
    pub log: Log,
    /// Where the configuration file is; commands run here.
    pub folder: PathBuf,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Unready but still serving, until balancers have noticed.
    pub delay: Duration,
    /// Then: time for requests and attempts that run.
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// None: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// In the words of `RUST_LOG`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Where the settings come from, apart from the file.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub command_line: Layer,
    pub environment: Vec<(OsString, OsString)>,
    /// `--config`; else `JUSTONCE_CONFIG`; else `justonce.toml`, if it is there.
    pub config: Option<PathBuf>,
}

impl Settings {
    pub fn load(sources: Sources) -> Result<Settings, ConfigError> {
        let named = |(name, path): &(OsString, OsString)| {
            (name == "JUSTONCE_CONFIG" && !path.is_empty()).then(|| PathBuf::from(path))
        };
        let path = sources
            .config
            .or_else(|| sources.environment.iter().find_map(named));
        let environment = layer::environment(sources.environment)?;
        let mut file = File::open(path.as_deref())?;
        let from_file = std::mem::take(&mut file.settings);
        let layers = Layers(vec![sources.command_line, environment, from_file]);
        Settings::resolve(&layers, file)
    }

    fn resolve(layers: &Layers, file: File) -> Result<Settings, ConfigError> {
        let listen = edge::listen(layers)?;
        let storage = Storage::resolve(layers)?;
        let mail = outside::mail(layers)?;
        let egress = file.egress.rules()?;
        let edge = edge::resolve(layers, listen)?;
        let defaults = Defaults {
            egress: egress.clone(),
            mails: mail.is_some(),
            ..defaults(layers, &file)?
        };
        Ok(Settings {
            listen,
            durability_min: durability_min(layers, &storage)?,
            storage,
            workers: workers(layers)?,
            limits: limits(layers, &file, edge.auth)?,
            edge,
            drain: Drain {
                delay: seconds(layers, "drain_delay_seconds", Duration::from_secs(5))?,
                grace: seconds(layers, "drain_grace_seconds", Duration::from_secs(30))?,
            },
            bootstrap_key: bootstrap_key(layers)?,
            egress,
            mail,
            webhook_secret: outside::webhook_secret(layers)?,
            types: task_types(&file, &defaults)?,
            log: log(layers)?,
            folder: match file.folder.as_os_str().is_empty() {
                true => PathBuf::from("."),
                false => file.folder,
            },
        })
    }
}

fn defaults(layers: &Layers, file: &File) -> Result<Defaults, ConfigError> {
    let usual = Defaults::default();
    let retries = |text: &str| text.parse().ok().filter(|&count: &u32| count < 1000);
    Ok(Defaults {
        window: seconds(layers, "deduplication_ttl", usual.window)?,
        retries: match layers.get("max_retry_count") {
            Some(given) => given.read("a number of retries, 0 to 999", retries)?,
            None => usual.retries,
        },
        first_delay: seconds(layers, "retry_delay_seconds", usual.first_delay)?,
        ageing: ageing(layers, usual.ageing)?,
        retention: file.retention,
        ..usual
    })
}

/// Up to a day: nine levels of it are what priority can be worth.
fn ageing(layers: &Layers, usual: Duration) -> Result<Duration, ConfigError> {
    const AGEING: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(86_400);
    let Some(given) = layers.get("priority_ageing_seconds") else {
        return Ok(usual);
    };
    let ageing = |text: &str| {
        let span = Seconds::parse(text)?.0;
        AGEING.contains(&span).then_some(span)
    };
    given.read("a number of seconds, 0.001 to 86400", ageing)
}

fn limits(layers: &Layers, file: &File, auth: AuthMode) -> Result<Limits, ConfigError> {
    let limits = file.limits.clone().limits();
    let limits = limits.map_err(|error| file.locate("limits", error))?;
    let quotas = quotas::quotas(layers, file, auth)?;
    Ok(Limits { quotas, ..limits })
}

/// The built-in types, changed and joined by those of the file.
fn task_types(file: &File, defaults: &Defaults) -> Result<TaskTypes, ConfigError> {
    let mut types = Vec::new();
    for name in builtin::NAMES {
        types.extend(builtin::task_type(name, defaults)?);
    }
    for (name, table) in &file.task_types {
        let made = table.task_type(name, defaults, &file.folder);
        types.push(made.map_err(|error| file.locate(&format!("task_types.{name}"), error))?);
    }
    Ok(types.into_iter().collect())
}

fn workers(layers: &Layers) -> Result<usize, ConfigError> {
    let count = |text: &str| text.parse().ok().filter(|&count: &usize| count <= 4096);
    match layers.get("workers") {
        Some(given) => given.read("a number of workers, 0 to 4096", count),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

fn durability_min(layers: &Layers, storage: &Storage) -> Result<Durability, ConfigError> {
    let Some(given) = layers.get("durability") else {
        return Ok(Durability::Memory);
    };
    let levels = [
        Durability::Memory,
        Durability::Fsync,
        Durability::ReplicatedFsync,
    ];
    let named = |level: &Durability| level.name() == given.text.trim();
    let Some(level) = levels.into_iter().find(named) else {
        return Err(given.refuse("the levels are memory, fsync and replicated-fsync"));
    };
    if level > storage.durability() {
        return Err(given.refuse(match storage.store {
            storage::StoreChoice::Memory => "the memory store does not survive that much",
            _ => "replicated-fsync is for Redis with replicas",
        }));
    }
    Ok(level)
}

/// The text itself is never shown.
fn bootstrap_key(layers: &Layers) -> Result<Option<String>, ConfigError> {
    let Some(given) = layers.get("bootstrap_key") else {
        return Ok(None);
    };
    let text = given.text.trim();
    match PresentedKey::parse(text) {
        Some(_) => Ok(Some(text.to_owned())),
        None => Err(given.refuse("a key has 8 to 256 visible ASCII characters")),
    }
}

fn log(layers: &Layers) -> Result<Log, ConfigError> {
    let format = |text: &str| match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    };
    let filter = |text: &str| {
        let valid = tracing_subscriber::EnvFilter::try_new(text).is_ok();
        valid.then(|| text.to_owned())
    };
    Ok(Log {
        format: layers
            .get("log_format")
            .map(|given| given.read("text or json", format))
            .transpose()?,
        filter: match layers.get("log_filter") {
            Some(given) => given.read("a filter, such as info or justonce=debug", filter)?,
            None => "info".to_owned(),
        },
    })
}

fn seconds(layers: &Layers, key: &'static str, usual: Duration) -> Result<Duration, ConfigError> {
    match layers.get(key) {
        Some(given) => Ok(given.read("a number of seconds", Seconds::parse)?.0),
        None => Ok(usual),
    }
}

fn switch(given: &Given) -> Result<bool, ConfigError> {
    given.read("true or false", |text| {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    })
}

/// A path as it was given; the empty one is where the process runs.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests;
