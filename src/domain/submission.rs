//! What a client sends, once it has been found valid.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::callback::Callback;
use super::file::File;
use super::fingerprint::{Content, FieldHashes, Fingerprint, FingerprintRule};
use super::matching::Matching;
use super::principal::UserId;
use super::task::Priority;
use super::task_type::{Debounce, DedupMode, TaskType};
use super::timestamp::Timestamp;
use super::turns::ConcurrencyKey;

#[derive(Clone, Debug)]
pub struct Submission {
    pub task_type: Arc<TaskType>,
    pub params: Value,
    pub files: Vec<File>,
    pub priority: Option<Priority>,
    pub start: Start,
    pub dedup: DedupRequest,
    pub tags: BTreeMap<String, String>,
    /// No part of the work's identity.
    pub callback: Option<Callback>,
}

/// When the first attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Now,
    /// Part of the work's identity.
    At(Timestamp),
    /// From the moment of admission; no part of the work's identity.
    After(Duration),
}

/// What a submission asks of deduplication; the type decides what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DedupRequest {
    pub mode: Option<DedupMode>,
    pub window: Option<Duration>,
    pub by: Option<Vec<String>>,
    /// With [`DedupMode::Debounce`] only.
    pub debounce: Option<Debounce>,
}

impl Submission {
    /// Submissions may carry tags up to this number.
    pub const TAGS_MAX: usize = 16;
    /// Characters that a tag's name or value may have.
    pub const TAG_LENGTH_MAX: usize = 128;
    /// `run_at` and `delay_seconds` reach this far ahead at most: one year.
    pub const DELAY_MAX: Duration = Duration::from_secs(366 * 86_400);

    pub fn mode(&self) -> DedupMode {
        self.dedup.mode.unwrap_or(self.task_type.dedup.mode)
    }

    /// How long it waits for a newer one, if its mode is to wait.
    pub fn debounce(&self) -> Option<Debounce> {
        let debounce = self.dedup.debounce.or(self.task_type.dedup.debounce);
        debounce.filter(|_| self.mode() == DedupMode::Debounce)
    }

    /// What it has in common with those that it is in conflict with, if its mode looks for any.
    pub fn matching(&self, user: &UserId, fingerprint: &Fingerprint) -> Option<Matching> {
        if !self.mode().is_of_conflicts() {
            return None;
        }
        let by = match &self.dedup.by {
            Some(by) => by,
            None => &self.task_type.dedup.by,
        };
        let scope = self.task_type.fingerprint_rule().scope;
        let content = self.content(user);
        Some(match by.is_empty() {
            true => Matching::of_content(fingerprint),
            false => Matching::of_values(&scope, &content, by),
        })
    }

    pub fn window(&self) -> Duration {
        self.dedup.window.unwrap_or(self.task_type.dedup.window)
    }

    pub fn priority(&self) -> Priority {
        self.priority.unwrap_or(self.task_type.priority)
    }

    /// What keeps it from running beside others of its user and type.
    pub fn concurrency_key(&self) -> Option<ConcurrencyKey> {
        let pointer = self.task_type.concurrency_key.as_deref()?;
        ConcurrencyKey::at(pointer, &self.params)
    }

    /// The start that was asked for; with a mode that waits, the store has more to say.
    pub fn starts_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self.start {
            Start::Now => None,
            Start::At(at) => Some(at),
            Start::After(delay) => Some(now.plus(delay)),
        }
    }

    pub fn fingerprint(&self, user: &UserId, rule: &FingerprintRule) -> Fingerprint {
        rule.fingerprint(&self.content(user))
    }

    pub fn field_hashes(&self, user: &UserId, rule: &FingerprintRule) -> FieldHashes {
        rule.field_hashes(&self.content(user))
    }

    /// The params as the task keeps them.
    pub fn params_text(&self) -> Arc<RawValue> {
        serde_json::value::to_raw_value(&self.params)
            .map_or_else(|_| RawValue::NULL.to_owned().into(), Arc::from)
    }

    fn content<'a>(&'a self, user: &'a UserId) -> Content<'a> {
        let run_at = match self.start {
            Start::At(at) => Some(at),
            Start::Now | Start::After(_) => None,
        };
        Content {
            user,
            task_type: &self.task_type.name,
            group: self.task_type.dedup.group.as_deref(),
            run_at,
            params: &self.params,
            files: &self.files,
        }
    }
}
