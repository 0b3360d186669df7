//! Where tasks and the bytes of files are kept.

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    Embedded,
    Memory,
}

impl Storage {
    pub(super) fn resolve(layers: &Layers) -> Result<Storage, ConfigError> {
        let store = store(layers)?;
        let data = match (layers.get("data"), store) {
            (Some(given), _) => Some(absolute(given.text.as_ref())),
            (None, StoreChoice::Embedded) => Some(absolute("data".as_ref())),
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

    pub fn durability(&self) -> Durability {
        match self.store {
            StoreChoice::Embedded => Durability::Fsync,
            StoreChoice::Memory => Durability::Memory,
        }
    }
}

/// Within one source, `store` wins over `mock_mode = true`, which wins over `redis_url`.
fn store(layers: &Layers) -> Result<StoreChoice, ConfigError> {
    for layer in &layers.0 {
        if let Some(given) = layer.get("store") {
            return choice(given);
        }
        if let Some(given) = layer.get("mock_mode")
            && switch(given)?
        {
            return Ok(StoreChoice::Memory);
        }
        if let Some(given) = layer.get("redis_url") {
            return choice(given);
        }
    }
    Ok(StoreChoice::Embedded)
}

fn choice(given: &Given) -> Result<StoreChoice, ConfigError> {
    match given.text.trim() {
        "embedded" => Ok(StoreChoice::Embedded),
        "memory" => Ok(StoreChoice::Memory),
        text if text.starts_with("redis") => Err(given.refuse(
            "the Redis store comes with a later release; the stores are embedded and memory",
        )),
        _ => Err(given.refuse("the stores are embedded and memory")),
    }
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
