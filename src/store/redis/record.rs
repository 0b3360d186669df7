//! A task's record, as scripts show it.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::reply::{Reply, senseless};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File, Generation};
use crate::domain::fingerprint::Fingerprint;
use crate::domain::principal::UserId;
use crate::domain::submission::Submission;
use crate::domain::task::{FencingToken, Outcome, Priority, State, Task, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;

/// The task, and what only the store needs.
#[derive(Clone, Debug)]
pub struct Record {
    pub task: Task,
    pub token: FencingToken,
    /// How long it answers for its content.
    pub window: Duration,
    /// The key that the task was first submitted with.
    pub key: Option<String>,
}

/// What is written once, at admission, and never searched for.
#[derive(Serialize, Deserialize)]
pub struct Body {
    pub params: Arc<RawValue>,
    /// The copies that hold their bytes are in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How a result that is kept in blob storage is written.
#[derive(Serialize, Deserialize)]
pub struct StoredBlob {
    pub name: BlobName,
    pub size: u64,
}

impl Record {
    /// Id, fields, submission, result.
    pub fn read(mut reply: Reply) -> Result<Record, StoreError> {
        let id = reply.word()?;
        let mut fields = Fields::read(reply.part()?)?;
        let body: Body = from_json(&reply.word()?)?;
        let result = reply.text()?;
        let state = fields
            .take("state")
            .and_then(|name| State::parse(&name))
            .ok_or_else(senseless)?;
        let due_at = fields.time("due_at")?;
        let keep = fields.take("keep").ok_or_else(senseless)?;
        let error = fields.take("error");
        let progress = fields.take("progress");
        let task = Task {
            id: TaskId::parse(&id).ok_or_else(senseless)?,
            task_type: fields.take("type").ok_or_else(senseless)?,
            state,
            user: fields
                .take("user")
                .and_then(|user| UserId::parse(&user))
                .ok_or_else(senseless)?,
            fingerprint: fields
                .take("fingerprint")
                .and_then(|hex| Sha256Digest::parse_hex(&hex))
                .map(Fingerprint::from_digest),
            params: body.params,
            files: with_copies(body.files, fields.take("files").as_deref()),
            priority: fields
                .number("priority")?
                .and_then(Priority::new)
                .ok_or_else(senseless)?,
            tags: body.tags,
            attempt: fields.number("attempt")?.unwrap_or(0),
            max_attempts: match fields.number("max_attempts")? {
                Some(raised) => raised,
                None => kept(&keep, 1)?,
            },
            progress: progress.as_deref().map(from_json).transpose()?,
            created_at: fields.time("created_at")?.ok_or_else(senseless)?,
            scheduled_at: fields.time("scheduled_at")?,
            started_at: fields.time("started_at")?,
            finished_at: fields.time("finished_at")?,
            next_attempt_at: due_at.filter(|_| state == State::Retrying),
            dedup_expires_at: fields.time("dedup_expires_at")?,
            outcome: outcome(fields.take("result_kind").as_deref(), result)?,
            error: error.as_deref().map(from_json).transpose()?,
            duplicates: fields.number("duplicates")?.unwrap_or(0),
        };
        Ok(Record {
            window: Duration::from_millis(kept(&keep, 0)?),
            task,
            token: FencingToken(fields.number("token")?.unwrap_or(0)),
            key: body.key,
        })
    }

    /// How long the attempt took that gave the result.
    pub fn run_time(task: &Task) -> Duration {
        match (task.started_at, task.finished_at) {
            (Some(started), Some(finished)) => finished.since(started),
            _ => Duration::ZERO,
        }
    }
}

/// What is kept how long, as the scripts read it: window, attempts, retentions of key, result, task,
/// failed task and file. Spans are in ms.
pub fn keep(submission: &Submission) -> String {
    let retention = submission.task_type.retention;
    let ms = |span: Duration| {
        u64::try_from(span.as_millis())
            .unwrap_or(u64::MAX)
            .min(SPAN_MS_MAX)
    };
    format!(
        "{} {} {} {} {} {} {}",
        ms(submission.window()),
        submission.task_type.retry.max_attempts,
        ms(retention.key),
        ms(retention.result),
        ms(retention.task),
        ms(retention.failed_task),
        ms(retention.file),
    )
}

/// Lua counts exactly up to 2^53.
pub const SPAN_MS_MAX: u64 = 1 << 52;

fn kept<T: FromStr>(keep: &str, place: usize) -> Result<T, StoreError> {
    let word = keep.split(' ').nth(place);
    word.and_then(|word| word.parse().ok())
        .ok_or_else(senseless)
}

/// `sha256:generation:size …`, in the order of the files.
pub fn with_copies(files: Vec<File>, copies: Option<&str>) -> Vec<File> {
    let copies = copies.unwrap_or_default().split(' ');
    let with_copy = |(file, copy): (File, &str)| {
        let mut words = copy.split(':').skip(1);
        File {
            generation: words.next().and_then(Generation::parse),
            size: words
                .next()
                .and_then(|size| size.parse().ok())
                .unwrap_or(file.size),
            ..file
        }
    };
    files.into_iter().zip(copies).map(with_copy).collect()
}

fn outcome(kind: Option<&str>, result: Option<String>) -> Result<Option<Outcome>, StoreError> {
    Ok(match (kind, result) {
        (Some("expired"), _) => Some(Outcome::Expired),
        (Some("inline"), Some(text)) => {
            let raw = RawValue::from_string(text).map_err(|_| senseless())?;
            Some(Outcome::Inline(raw.into()))
        }
        (Some("blob"), Some(text)) => {
            let StoredBlob { name, size } = from_json(&text)?;
            Some(Outcome::Blob { name, size })
        }
        _ => None,
    })
}

struct Fields(HashMap<String, String>);

impl Fields {
    fn read(mut flat: Reply) -> Result<Self, StoreError> {
        let mut fields = HashMap::new();
        while !flat.is_over() {
            fields.insert(flat.word()?, flat.word()?);
        }
        Ok(Fields(fields))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, StoreError> {
        let parsed = self.take(name).map(|text| text.parse());
        parsed.transpose().map_err(|_| senseless())
    }

    fn time(&mut self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.number(name)?.map(Timestamp::from_ms))
    }
}

pub fn from_json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| senseless())
}

pub fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| senseless())
}
