//! Where tasks and the bytes of files are kept.

use std::fmt;
use std::path::PathBuf;

use super::error::ConfigError;
use super::layer::{Given, Layers};
use super::{absolute, switch};
use crate::store::Durability;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub store: StoreChoice,
    /// Folder of the store, of its lock and of the bootstrap key. The memory store has one only when
    /// somebody names it.
    pub data: Option<PathBuf>,
    /// Folder of files; none: a temporary one that ends with the process.
    pub blobs: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    Embedded,
    Memory,
    Redis(RedisChoice),
}

#[derive(Clone, PartialEq, Eq)]
pub struct RedisChoice {
    /// May hold a password, and is never shown.
    pub url: String,
    /// Before every key.
    pub prefix: String,
    /// Certificates to trust instead of those of the system.
    pub ca: Option<PathBuf>,
    /// What holds where Redis does not show its settings.
    pub assume: Option<String>,
}

impl fmt::Debug for RedisChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis under {:?}", self.prefix)
    }
}

/// Before every key, unless somebody names another.
const REDIS_PREFIX: &str = "justonce";
/// Characters that a prefix may have.
const REDIS_PREFIX_LENGTH_MAX: usize = 64;

impl Storage {
    pub(super) fn resolve(layers: &Layers) -> Result<Storage, ConfigError> {
        let store = store(layers)?;
        let data = match (layers.get("data"), &store) {
            (Some(given), _) => Some(absolute(given.text.as_ref())),
            (None, StoreChoice::Embedded | StoreChoice::Redis(_)) => {
                Some(absolute("data".as_ref()))
            }
            (None, StoreChoice::Memory) => None,
        };
        let blobs = match layers.get("blobs") {
            Some(given) => blobs(given)?,
            None => None,
        };
        let below_data = || data.as_ref().map(|folder| folder.join("blobs"));
        Ok(Storage {
            store,
            blobs: blobs.or_else(below_data),
            data,
        })
    }

    /// The most that the store can offer; what Redis does offer is seen when it is there.
    pub fn durability(&self) -> Durability {
        match self.store {
            StoreChoice::Redis(_) => Durability::ReplicatedFsync,
            StoreChoice::Embedded => Durability::Fsync,
            StoreChoice::Memory => Durability::Memory,
        }
    }
}

/// Within one source, `store` wins over `mock_mode = true`, which wins over `redis_url`.
fn store(layers: &Layers) -> Result<StoreChoice, ConfigError> {
    for layer in &layers.0 {
        if let Some(given) = layer.get("store") {
            return choice(given, layers);
        }
        if let Some(given) = layer.get("mock_mode")
            && switch(given)?
        {
            return Ok(StoreChoice::Memory);
        }
        if let Some(given) = layer.get("redis_url") {
            return choice(given, layers);
        }
    }
    Ok(StoreChoice::Embedded)
}

fn choice(given: &Given, layers: &Layers) -> Result<StoreChoice, ConfigError> {
    match given.text.trim() {
        "embedded" => Ok(StoreChoice::Embedded),
        "memory" => Ok(StoreChoice::Memory),
        text if text.starts_with("redis") => Ok(StoreChoice::Redis(RedisChoice {
            url: text.to_owned(),
            prefix: redis_prefix(layers)?,
            ca: layers
                .get("redis_ca")
                .map(|given| absolute(given.text.as_ref())),
            assume: layers
                .get("redis_assume")
                .map(|given| given.text.trim().to_owned()),
        })),
        _ => Err(given.refuse("the stores are embedded, memory and redis://host")),
    }
}

/// Braces would move the hash tags of keys.
fn redis_prefix(layers: &Layers) -> Result<String, ConfigError> {
    let Some(given) = layers.get("redis_prefix") else {
        return Ok(REDIS_PREFIX.to_owned());
    };
    given.read("1 to 64 of A-Z a-z 0-9 . _ : -", |text| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        let valid = (1..=REDIS_PREFIX_LENGTH_MAX).contains(&text.len()) && text.bytes().all(legal);
        valid.then(|| text.to_owned())
    })
}

/// `file:///…`; `file:` alone is the usual folder.
fn blobs(given: &Given) -> Result<Option<PathBuf>, ConfigError> {
    let text = given.text.trim();
    if text == "file:" {
        return Ok(None);
    }
    if text.starts_with("s3:") {
        return Err(given.refuse("S3 comes with a later release; file:///… is there now"));
    }
    let url = url::Url::parse(text)
        .ok()
        .filter(|url| url.scheme() == "file");
    match url.and_then(|url| url.to_file_path().ok()) {
        Some(path) => Ok(Some(path)),
        None => Err(given.refuse("the form is file:///folder")),
    }
}
