//! A task as clients see it, in answers and in what is sent to them.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::principal::UserId;
use crate::domain::task::{Outcome, Priority, Progress, State, Task, TaskError, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::links::{Link, Links};
use crate::store::MatchedBy;

/// A task. Members without a value are null.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView<'a> {
    #[schema(value_type = String)]
    id: &'a TaskId,
    #[serde(rename = "type")]
    task_type: &'a str,
    #[schema(value_type = TaskState)]
    state: State,
    #[schema(value_type = String)]
    user: &'a UserId,
    /// `v1:` and 64 hexadecimal digits; null for a submission that asked for no deduplication.
    #[schema(value_type = Option<String>)]
    fingerprint: Option<Fingerprint>,
    /// Whether this answers a submission with a task that existed already.
    deduplicated: bool,
    #[schema(value_type = Option<MatchedByName>)]
    matched_by: Option<MatchedBy>,
    /// Only in the answer to a duplicate: since when there is the task that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, format = DateTime)]
    matched_since: Option<Timestamp>,
    /// Only in the answer to a duplicate: until when the same key, or the same content, gets this task; with mode
    /// `throttle` all that matches. Absent
    /// while that has no end yet: until the task has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, format = DateTime)]
    matched_until: Option<Timestamp>,
    /// Duplicates that were suppressed.
    duplicates: u64,
    /// 0 goes first, 9 last.
    #[schema(value_type = u8, maximum = 9)]
    priority: Priority,
    tags: &'a BTreeMap<String, String>,
    /// The file, when there is exactly one.
    file: Option<FileView<'a>>,
    /// The files, when there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileView<'a>>>,
    /// The newest attempt, from 1; 0 before the first.
    attempt: u32,
    max_attempts: u32,
    progress: Option<ProgressView<'a>>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    scheduled_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    /// Until when a succeeded task answers for its fingerprint.
    #[schema(value_type = Option<String>, format = DateTime)]
    dedup_expires_at: Option<Timestamp>,
    /// What the task gave. Null also when it is large: `links.result` streams it.
    #[schema(value_type = Option<Object>)]
    result: Option<&'a RawValue>,
    #[schema(value_type = Option<TaskErrorDocument>)]
    error: Option<&'a TaskError>,
    /// Only of a cancelled task whose place a newer submission has taken: the newer one's task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    superseded_by: Option<&'a TaskId>,
    links: LinksView<'a>,
    /// Until when it answers for all that it matches.
    #[serde(skip)]
    throttles_until: Option<Timestamp>,
    /// Members of a duplicate that could not be applied to the existing task, as JSON pointers.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ignored: &'a [&'static str],
}

#[derive(Serialize, ToSchema)]
#[schema(as = TaskFile)]
struct FileView<'a> {
    /// The multipart part that carried it; only in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'a str>,
    #[schema(value_type = String)]
    sha256: Sha256Digest,
    size: u64,
    name: Option<&'a str>,
    media_type: Option<&'a str>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TaskProgress)]
struct ProgressView<'a> {
    #[serde(serialize_with = "plain_number")]
    done: f64,
    #[serde(serialize_with = "plain_number_or_null")]
    total: Option<f64>,
    message: Option<&'a str>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TaskLinks)]
struct LinksView<'a> {
    #[serde(rename = "self")]
    #[schema(value_type = String)]
    itself: Link<'a>,
    #[schema(value_type = String)]
    result: Link<'a>,
    #[schema(value_type = String)]
    events: Link<'a>,
}

/// Where a task stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    Scheduled,
    Queued,
    Running,
    Retrying,
    Succeeded,
    Failed,
    Cancelled,
}

/// What told a submission to be a duplicate.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = MatchedBy)]
pub enum MatchedByName {
    IdempotencyKey,
    Fingerprint,
    /// What `dedup.by` points at, with mode `throttle`: the rest of the content may be another one.
    DedupBy,
}

/// Why a task's newest attempt did not succeed.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskError)]
pub struct TaskErrorDocument {
    code: String,
    message: String,
    attempt: u32,
    permanent: bool,
}

impl<'a> TaskView<'a> {
    pub fn of(links: &'a impl AsRef<Links>, task: &'a Task) -> Self {
        let (file, files) = match task.files.as_slice() {
            [] => (None, None),
            [one] => (
                Some(FileView {
                    part: None,
                    ..FileView::of(one)
                }),
                None,
            ),
            several => (None, Some(several.iter().map(FileView::of).collect())),
        };
        TaskView {
            id: &task.id,
            task_type: &task.task_type,
            state: task.state,
            user: &task.user,
            fingerprint: task.fingerprint,
            deduplicated: false,
            matched_by: None,
            matched_since: None,
            matched_until: None,
            duplicates: task.duplicates,
            priority: task.priority,
            tags: &task.tags,
            file,
            files,
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            progress: task.progress.as_ref().map(ProgressView::of),
            created_at: task.created_at,
            scheduled_at: task.scheduled_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            next_attempt_at: task.next_attempt_at,
            dedup_expires_at: task.dedup_expires_at,
            result: match &task.outcome {
                Some(Outcome::Inline(json)) => Some(json),
                Some(Outcome::Blob { .. } | Outcome::Expired) | None => None,
            },
            error: task.error.as_ref(),
            superseded_by: task.superseded_by.as_ref(),
            throttles_until: task.throttles_until,
            links: LinksView {
                itself: Link::of_task(links, &task.id),
                result: Link::of_part(links, &task.id, "/result"),
                events: Link::of_part(links, &task.id, "/events"),
            },
            ignored: &[],
        }
    }

    /// The same as the answer to a submission, whose key is kept until `key_expires_at`.
    pub fn matched(
        self,
        matched_by: Option<MatchedBy>,
        key_expires_at: Option<Timestamp>,
        ignored: &'a [&'static str],
    ) -> Self {
        TaskView {
            deduplicated: matched_by.is_some(),
            matched_by,
            matched_since: matched_by.map(|_| self.created_at),
            matched_until: match matched_by {
                Some(MatchedBy::IdempotencyKey) => key_expires_at,
                Some(MatchedBy::Fingerprint) => self.dedup_expires_at,
                Some(MatchedBy::DedupBy) => self.throttles_until,
                None => None,
            },
            ignored,
            ..self
        }
    }
}

impl<'a> FileView<'a> {
    fn of(file: &'a File) -> Self {
        FileView {
            part: file.part.as_deref(),
            sha256: file.sha256,
            size: file.size,
            name: file.name.as_deref(),
            media_type: file.media_type.as_deref(),
        }
    }
}

impl<'a> ProgressView<'a> {
    fn of(progress: &'a Progress) -> Self {
        ProgressView {
            done: progress.done,
            total: progress.total,
            message: progress.message.as_deref(),
        }
    }
}

/// 10 rather than 10.0.
fn plain_number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

fn plain_number_or_null<S: Serializer>(
    number: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => plain_number(number, serializer),
        None => serializer.serialize_none(),
    }
}
