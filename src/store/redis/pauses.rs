//! Types whose tasks are not leased. They are on record in one place; every replica knows them by heart, and looks
//! after them when it is told to, and once a second.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::scripts::PAUSE;
use super::step::{Step, Steps};
use crate::store::StoreError;

/// What this replica knows.
#[derive(Default)]
pub struct Pauses {
    known: Mutex<BTreeSet<String>>,
    is_outdated: AtomicBool,
}

impl Pauses {
    /// Of these types, those that may be leased.
    pub fn open(&self, types: &[String]) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let open = types.iter().filter(|name| !known.contains(*name));
        open.cloned().collect()
    }

    /// Whether some type is not paused any more.
    pub fn know(&self, paused: BTreeSet<String>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let resumed = !known.is_subset(&paused);
        *known = paused;
        resumed
    }

    /// Somebody has paused or resumed a type.
    pub fn have_changed(&self) {
        self.is_outdated.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened since this was last asked.
    pub fn take_outdated(&self) -> bool {
        self.is_outdated.swap(false, Ordering::Relaxed)
    }
}

pub async fn all(steps: &Steps, keys: &Keys) -> Result<BTreeSet<String>, StoreError> {
    let root = keys.root(Partition::FIRST);
    let step = Step::command("HGETALL").arg(keys::paused(root));
    let mut pairs = steps.take(step).await?;
    let mut paused = BTreeSet::new();
    while !pairs.is_over() {
        paused.insert(pairs.word()?);
        pairs.value()?;
    }
    Ok(paused)
}

pub async fn pause(steps: &Steps, keys: &Keys, task_type: &str) -> Result<(), StoreError> {
    set(steps, keys, "pause", task_type).await
}

pub async fn resume(steps: &Steps, keys: &Keys, task_type: &str) -> Result<(), StoreError> {
    set(steps, keys, "resume", task_type).await
}

async fn set(steps: &Steps, keys: &Keys, what: &str, task_type: &str) -> Result<(), StoreError> {
    let root = keys.root(Partition::FIRST);
    let step = Step::new(&PAUSE, &[root, &keys::paused(root)])
        .arg(what)
        .arg(task_type);
    expect(&mut steps.take(step).await?, &format!("{what}d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paused_is_left_out_until_it_is_resumed() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let pauses = Pauses::default();
        let types = ["a".to_owned(), "b".to_owned()];
        assert!(!pauses.know(set(&["a"])));
        assert_eq!(pauses.open(&types), ["b"]);
        assert!(!pauses.know(set(&["a", "b"])));
        assert!(pauses.open(&types).is_empty());
        assert!(pauses.know(set(&["b"])));
        assert_eq!(pauses.open(&types), ["a"]);
    }
}
