//! API keys that the store was asked for a moment ago.

use std::time::Duration;

use moka::sync::Cache;

use crate::store::ApiKey;

/// Only keys that were there are kept: a new key works at once.
#[derive(Clone, Debug)]
pub struct KeyCache(Cache<String, ApiKey>);

impl KeyCache {
    /// How long a key that another replica revokes may still be used here.
    const AGE_MAX: Duration = Duration::from_secs(5);
    const KEYS_MAX: u64 = 10_000;

    pub fn get(&self, id: &str) -> Option<ApiKey> {
        self.0.get(id)
    }

    pub fn keep(&self, key: ApiKey) {
        self.0.insert(key.id.clone(), key);
    }

    pub fn forget(&self, id: &str) {
        self.0.invalidate(id);
    }
}

impl Default for KeyCache {
    fn default() -> Self {
        KeyCache(
            Cache::builder()
                .max_capacity(Self::KEYS_MAX)
                .time_to_live(Self::AGE_MAX)
                .build(),
        )
    }
}
