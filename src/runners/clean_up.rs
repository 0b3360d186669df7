//! `cleanup_old_data`: forgets the user's ended tasks and removes files that nothing names, past an age.
//!
//! Every step is one that may be repeated, so that an attempt goes on where another broke off; each counts what
//! it has removed itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::Value;

use super::Surroundings;
use super::chores::{not_now, result};
use crate::blobs::Blobs;
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::principal::UserId;
use crate::domain::task::{Outcome, Progress, Task};
use crate::domain::timestamp::Timestamp;
use crate::results::delete;
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use crate::store::{Cursor, Forgotten, ListFilter, Store, StoreError};

/// Tasks that are looked at in one step.
const PAGE: usize = 100;
/// Tasks or files that are being removed at a time.
const AT_A_TIME: usize = 16;
/// Files that one run removes at most; the next one removes more.
const FILES_MAX: usize = 10_000;

pub struct CleanUp {
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
}

impl CleanUp {
    pub fn new(surroundings: &Surroundings) -> Self {
        CleanUp {
            store: surroundings.store.clone(),
            blobs: surroundings.blobs.clone(),
        }
    }
}

#[async_trait]
impl Runner for CleanUp {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        let wishes = Wishes::read(attempt.task.params.get());
        // By the clock of the store, which has also said when tasks ended.
        let now = attempt.task.started_at.unwrap_or(attempt.task.created_at);
        let before = earlier(now, wishes.older_than);
        let mut found = Found {
            status: "success",
            dry_run: wishes.dry_run,
            older_than_seconds: wishes.older_than.as_secs(),
            before,
            tasks: Tasks::default(),
            files: Files::default(),
            more: false,
        };
        let mut unnamed = self.unreferenced(&attempt, &mut found).await?;
        self.tasks(&attempt, &mut found, &mut unnamed).await?;
        self.files(&attempt, &mut found, unnamed).await?;
        result(&found)
    }

    fn load(&self) -> Load {
        Load::Waiting
    }
}

impl CleanUp {
    /// Files that no unfinished or failed task reads; ended ones may still name them.
    async fn unreferenced(
        &self,
        attempt: &Attempt,
        found: &mut Found,
    ) -> Result<HashMap<Sha256Digest, File>, AttemptError> {
        let mut files = HashMap::new();
        let mut after = None;
        loop {
            if attempt.cancel.is_cancelled() {
                return Err(AttemptError::stopped());
            }
            let user = &attempt.task.user;
            let part = self.store.unreferenced(user, found.before, after).await;
            let part = part.map_err(not_now)?;
            for file in part.files {
                if files.len() < FILES_MAX {
                    files.insert(file.sha256, file);
                } else {
                    found.more |= !files.contains_key(&file.sha256);
                }
            }
            after = part.next;
            if after.is_none() || found.more {
                return Ok(files);
            }
        }
    }

    /// Forgets what has ended long ago. What all others name stays.
    async fn tasks(
        &self,
        attempt: &Attempt,
        found: &mut Found,
        unnamed: &mut HashMap<Sha256Digest, File>,
    ) -> Result<(), AttemptError> {
        let mut cursor: Option<Cursor> = None;
        let mut looked_at = 0;
        loop {
            if attempt.cancel.is_cancelled() {
                return Err(AttemptError::stopped());
            }
            let filter = ListFilter {
                limit: PAGE,
                cursor,
                ..ListFilter::default()
            };
            let page = self.store.list(&attempt.task.user, filter).await;
            let page = page.map_err(not_now)?;
            looked_at += page.tasks.len();
            let is_old = |task: &Task| {
                let ended = task.finished_at.filter(|_| task.state.is_ended());
                ended.is_some_and(|at| at <= found.before)
            };
            let (old, others): (Vec<Task>, Vec<Task>) = page.tasks.into_iter().partition(is_old);
            let mut stays = others;
            if found.dry_run {
                old.iter().for_each(|task| found.tasks.count(task));
            } else {
                let mut forgotten = stream::iter(old)
                    .map(|task| self.forget(task))
                    .buffer_unordered(AT_A_TIME);
                while let Some(one) = forgotten.try_next().await.map_err(not_now)? {
                    match one {
                        Fate::Gone(task) => found.tasks.count(&task),
                        Fate::Before => {}
                        Fate::Stays(task) => stays.push(task),
                    }
                }
            }
            for file in stays.iter().flat_map(|task| &task.files) {
                unnamed.remove(&file.sha256);
            }
            let progress = Progress {
                done: looked_at as f64,
                total: None,
                message: Some("tasks looked at".to_owned()),
            };
            // The newest wins: one that finds no room is passed over.
            let _ = attempt.progress.try_send(progress);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn forget(&self, task: Task) -> Result<Fate, StoreError> {
        Ok(match self.store.forget(&task.user, &task.id).await? {
            Forgotten::Done { disowned } => {
                delete(&*self.blobs, disowned.as_slice()).await;
                Fate::Gone(task)
            }
            // Its cancelled attempt may still be running.
            Forgotten::Unfinished => Fate::Stays(task),
            Forgotten::Unknown(_) => Fate::Before,
        })
    }

    async fn files(
        &self,
        attempt: &Attempt,
        found: &mut Found,
        unnamed: HashMap<Sha256Digest, File>,
    ) -> Result<(), AttemptError> {
        let copies = unnamed
            .into_values()
            .filter_map(|file| Some((file.blob()?, file.size)));
        if found.dry_run {
            copies.for_each(|(_, size)| found.files.count(size));
            return Ok(());
        }
        let (user, before) = (&attempt.task.user, found.before);
        let mut removed = stream::iter(copies)
            .map(|(name, size)| async move {
                let gone = self.remove(user, &name, before).await?;
                Ok::<_, StoreError>(gone.then_some(size))
            })
            .buffer_unordered(AT_A_TIME);
        while let Some(gone) = removed.try_next().await.map_err(not_now)? {
            if attempt.cancel.is_cancelled() {
                return Err(AttemptError::stopped());
            }
            gone.into_iter().for_each(|size| found.files.count(size));
        }
        Ok(())
    }

    /// Off the record first: bytes that no record names are swept away later, if this ends in between.
    async fn remove(
        &self,
        user: &UserId,
        name: &BlobName,
        before: Timestamp,
    ) -> Result<bool, StoreError> {
        let gone = self.store.forget_file(user, name, before).await?;
        if gone {
            delete(&*self.blobs, std::slice::from_ref(name)).await;
        }
        Ok(gone)
    }
}

enum Fate {
    Gone(Task),
    /// Someone else has forgotten it.
    Before,
    Stays(Task),
}

struct Wishes {
    dry_run: bool,
    older_than: Duration,
}

impl Wishes {
    const OLDER_THAN_SECONDS: f64 = 86_400.0;
    /// Ten years.
    const OLDER_THAN_SECONDS_MAX: f64 = 315_360_000.0;

    /// The schema has been checked at admission. What an operator's own schema lets through removes nothing.
    fn read(params: &str) -> Wishes {
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let age = params["older_than_seconds"].as_f64();
        let age = age.unwrap_or(Self::OLDER_THAN_SECONDS);
        Wishes {
            dry_run: params["dry_run"] != Value::Bool(false),
            older_than: Duration::from_secs_f64(age.clamp(0.0, Self::OLDER_THAN_SECONDS_MAX)),
        }
    }
}

/// What there was to remove, and was removed unless it was a dry run.
#[derive(Serialize)]
struct Found {
    status: &'static str,
    dry_run: bool,
    older_than_seconds: u64,
    before: Timestamp,
    tasks: Tasks,
    files: Files,
    /// Whether there are more files than one run removes.
    more: bool,
}

#[derive(Default, Serialize)]
struct Tasks {
    count: u64,
    /// Of params and results.
    bytes: u64,
    by_state: BTreeMap<&'static str, u64>,
}

#[derive(Default, Serialize)]
struct Files {
    count: u64,
    bytes: u64,
}

impl Tasks {
    fn count(&mut self, task: &Task) {
        let result = match &task.outcome {
            Some(Outcome::Inline(result)) => result.get().len() as u64,
            Some(Outcome::Blob { size, .. }) => *size,
            Some(Outcome::Expired) | None => 0,
        };
        self.count += 1;
        self.bytes += task.params.get().len() as u64 + result;
        *self.by_state.entry(task.state.name()).or_default() += 1;
    }
}

impl Files {
    fn count(&mut self, size: u64) {
        self.count += 1;
        self.bytes += size;
    }
}

fn earlier(now: Timestamp, span: Duration) -> Timestamp {
    let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_ms(now.as_ms().saturating_sub(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_unless_it_is_asked_for() {
        for params in ["{}", "null", r#"{"dry_run":"false"}"#, r#"{"dry_run":0}"#] {
            let wishes = Wishes::read(params);
            assert!(wishes.dry_run, "{params}");
            assert_eq!(wishes.older_than.as_secs(), 86_400);
        }
        let wishes = Wishes::read(r#"{"dry_run":false,"older_than_seconds":-5}"#);
        assert_eq!((wishes.dry_run, wishes.older_than), (false, Duration::ZERO));
    }
}
