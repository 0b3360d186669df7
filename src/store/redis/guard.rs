//! Whether Redis is set up to keep what it is given, at the start and every few seconds after.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::from_redis_value;

use super::step::{Step, Steps};
use crate::store::{Durability, StoreError};

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(5);

/// What the operator vouches for where Redis does not show its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assumed {
    pub noeviction: bool,
    pub fsync: bool,
}

impl Assumed {
    /// `noeviction`, `fsync`, or both with a comma.
    pub fn parse(text: &str) -> Option<Self> {
        let words: BTreeSet<_> = text.split(',').map(str::trim).collect();
        let known = |word: &&str| ["", "noeviction", "fsync", "memory"].contains(word);
        words.iter().all(known).then(|| Assumed {
            noeviction: words.contains("noeviction"),
            fsync: words.contains("fsync"),
        })
    }
}

/// What was seen last.
#[derive(Default)]
pub struct Guard {
    assumed: Assumed,
    fault: RwLock<Option<String>>,
    is_fsynced: AtomicBool,
}

impl Guard {
    pub fn new(assumed: Assumed) -> Self {
        Guard {
            assumed,
            ..Guard::default()
        }
    }

    /// Why Redis must not be used as it is, if so.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.read().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }

    pub fn durability(&self) -> Durability {
        if self.is_fsynced.load(Ordering::Relaxed) {
            Durability::Fsync
        } else {
            Durability::Memory
        }
    }

    pub async fn look(&self, steps: &Steps) -> Result<(), StoreError> {
        let shown = match self.settings(steps).await {
            Ok(shown) => Some(shown),
            // Managed servers forbid CONFIG; one that does not answer is seen by the ping.
            Err(_) if self.assumed != Assumed::default() => None,
            Err(error) => return Err(error),
        };
        let fault = shown.as_ref().and_then(eviction);
        let is_fsynced = match &shown {
            Some(settings) => {
                is(settings, "appendonly", "yes") && is(settings, "appendfsync", "always")
            }
            None => self.assumed.fsync,
        };
        let fault = match (shown, self.assumed.noeviction) {
            (None, false) => Some("nobody says whether Redis evicts".to_owned()),
            _ => fault,
        };
        self.is_fsynced.store(is_fsynced, Ordering::Relaxed);
        *self.fault.write().unwrap_or_else(PoisonError::into_inner) = fault;
        Ok(())
    }

    async fn settings(&self, steps: &Steps) -> Result<HashMap<String, String>, StoreError> {
        let names = ["maxmemory-policy", "appendonly", "appendfsync"];
        let step = Step::command("CONFIG").arg("GET").arg(&names);
        let value = steps.value(step).await?;
        from_redis_value(value)
            .map_err(|error| StoreError::Unavailable(format!("CONFIG GET: {error}")))
    }
}

fn eviction(settings: &HashMap<String, String>) -> Option<String> {
    if is(settings, "maxmemory-policy", "noeviction") {
        return None;
    }
    let policy = settings.get("maxmemory-policy");
    Some(format!(
        "Redis may drop records: maxmemory-policy is {}, and must be noeviction",
        policy.map_or("unknown", String::as_str)
    ))
}

fn is(settings: &HashMap<String, String>, name: &str, value: &str) -> bool {
    settings.get(name).is_some_and(|shown| shown == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_vouched_for_is_assumed() {
        let both = Assumed::parse("noeviction, fsync").unwrap();
        assert!(both.noeviction && both.fsync);
        assert_eq!(Assumed::parse("everything"), None);
    }

    #[test]
    fn any_policy_that_evicts_is_a_fault() {
        let policy = |word: &str| HashMap::from([("maxmemory-policy".to_owned(), word.to_owned())]);
        assert_eq!(eviction(&policy("noeviction")), None);
        for bad in ["allkeys-lru", "volatile-ttl"] {
            assert!(eviction(&policy(bad)).is_some_and(|fault| fault.contains(bad)));
        }
        assert!(eviction(&HashMap::new()).is_some());
    }
}
