//! What clients were told before a cut.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::log::Note;

#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// By key.
    pub sent: BTreeMap<String, usize>,
    /// Ids, by key.
    pub acknowledged: BTreeMap<String, String>,
    /// By id.
    pub ended: BTreeMap<String, Value>,
    /// User and digest.
    pub kept: BTreeSet<(String, String)>,
}

impl Expected {
    pub fn hear(&mut self, note: &Note) {
        match note.clone() {
            Note::Sent { key, content } => {
                self.sent.insert(key, content);
            }
            Note::Acknowledged { key, id } => {
                self.acknowledged.insert(key, id);
            }
            Note::Ended { id, task } => {
                self.ended.insert(id, task);
            }
            Note::Kept { user, sha256 } => {
                self.kept.insert((user, sha256));
            }
        }
    }

    /// Acknowledged submissions and files.
    pub fn count(&self) -> usize {
        self.acknowledged.len() + self.kept.len()
    }
}
