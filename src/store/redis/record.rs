//! A task's record, as scripts show it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::packed::{Packed, Reader};
use super::reply::{Reply, senseless};
use crate::domain::callback::{Callback, Terms};
use crate::domain::digest::Sha256Digest;
use crate::domain::event::Changes;
use crate::domain::file::{BlobName, File, Generation};
use crate::domain::fingerprint::{
    Algorithm, Content, FieldHashes, Fingerprint, FingerprintRule, FingerprintScope,
};
use crate::domain::principal::UserId;
use crate::domain::task::{FencingToken, Outcome, Priority, State, Task, TaskId};
use crate::domain::task_type::{DedupMode, Retention, TaskType};
use crate::domain::timestamp::Timestamp;
use crate::store::{Admission, StoreError};

/// The task, and what only the store needs.
#[derive(Clone, Debug)]
pub struct Record {
    pub task: Task,
    pub token: FencingToken,
    /// Whether an attempt may still be running.
    pub held: bool,
    /// How long it answers for its content.
    pub window: Duration,
    /// The key that the task was first submitted with.
    pub key: Option<String>,
    /// The start that is part of the work's identity.
    run_at: Option<Timestamp>,
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
    /// The start that is part of the work's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
}

/// How a result that is kept in blob storage is written.
#[derive(Serialize, Deserialize)]
pub struct StoredBlob {
    pub name: BlobName,
    pub size: u64,
}

/// A submission of more bytes lies beside its record, as in record.lua.
pub const SHORT_BYTES_MAX: usize = 512;

impl Record {
    /// Id, packed values, and the submission and the result when they lie beside them. The values are those
    /// that record.lua packs, in the same order.
    pub fn read(mut reply: Reply) -> Result<Record, StoreError> {
        let id = TaskId::parse(&reply.word()?).ok_or_else(senseless)?;
        let packed = reply.bytes()?;
        let (long_body, long_result) = (reply.word()?, reply.word()?);
        let mut values = Reader::new(&packed);
        let state = State::parse(values.word()?).ok_or_else(senseless)?;
        values.skip("seq")?;
        let priority = values.number()?.and_then(Priority::new);
        let created_at = values.time()?.ok_or_else(senseless)?;
        let scheduled_at = values.time()?;
        values.skip("ready_at")?;
        let due_at = values.time()?;
        let held = values.flag()?;
        let attempt = values.number()?.unwrap_or(0);
        let token = FencingToken(values.number()?.unwrap_or(0));
        let started_at = values.time()?;
        values.skip("lease_nonce")?;
        let finished_at = values.time()?;
        values.skip("bound_at")?;
        let attempts_raised = values.number()?;
        values.skip("kept_until")?;
        let result_kind = values.text()?;
        let result = values.text()?.unwrap_or(&long_result);
        values.skip("blob")?;
        let progress = values.text()?.map(from_json).transpose()?;
        let error = values.text()?.map(from_json).transpose()?;
        let duplicates = values.number()?.unwrap_or(0);
        let copies = values.text()?;
        let user = UserId::parse(values.word()?).ok_or_else(senseless)?;
        let task_type = values.word()?.to_owned();
        let key = values.text()?.map(str::to_owned);
        let fingerprint = digest(values.bytes()?)?;
        values.skip("rule")?;
        let is_content = values.flag()?;
        let window = Duration::from_millis(values.number()?.ok_or_else(senseless)?);
        let budget = values.number()?.ok_or_else(senseless)?;
        for retention in ["key", "result", "task", "failed", "file"] {
            values.skip(retention)?;
        }
        values.skip("tags")?;
        let body: Body = from_json(values.text()?.unwrap_or(&long_body))?;
        let changes = match values.is_over() {
            true => Changes::default(),
            false => Changes::new(values.number()?, values.bytes()?.unwrap_or_default()),
        };
        let (mut throttles, mut superseded_by) = (false, None);
        // A record of an older release ends with them, or before.
        if !values.is_over() {
            values.skip("callbacks")?;
        }
        if !values.is_over() {
            values.skip("matching")?;
            throttles = values.flag()?;
            values.skip("chained_at")?;
            values.skip("behind")?;
            superseded_by = values.text()?.and_then(TaskId::parse);
        }
        let throttles_until = throttles.then(|| created_at.plus(window));
        let task = Task {
            id,
            task_type,
            state,
            user,
            fingerprint: is_content.then_some(Fingerprint::from_digest(fingerprint)),
            params: body.params,
            files: with_copies(body.files, copies),
            priority: priority.ok_or_else(senseless)?,
            tags: body.tags,
            attempt,
            max_attempts: attempts_raised.unwrap_or(budget),
            progress,
            created_at,
            scheduled_at,
            started_at,
            finished_at,
            next_attempt_at: due_at.filter(|_| state == State::Retrying),
            dedup_expires_at: finished_at
                .filter(|_| is_content && state == State::Succeeded)
                .map(|at| throttles_until.unwrap_or(at.plus(window))),
            outcome: outcome(result_kind, result)?,
            error,
            duplicates,
            superseded_by,
            throttles_until,
            changes,
        };
        Ok(Record {
            window,
            task,
            token,
            held,
            key,
            run_at: body.run_at,
        })
    }

    /// What the task's submission was made of, under the rule that it was recorded with.
    pub fn fields(&self, rule: &FingerprintRule) -> Result<FieldHashes, StoreError> {
        let params = from_json(self.task.params.get())?;
        let content = Content {
            user: &self.task.user,
            task_type: &self.task.task_type,
            group: rule.scope.group(),
            run_at: self.run_at,
            params: &params,
            files: &self.task.files,
        };
        Ok(rule.field_hashes(&content))
    }

    /// How long the attempt took that gave the result.
    pub fn run_time(task: &Task) -> Duration {
        match (task.started_at, task.finished_at) {
            (Some(started), Some(finished)) => finished.since(started),
            _ => Duration::ZERO,
        }
    }
}

/// What a submission says of its record's values, packed; the last of them is the body, if it is short. Spans
/// are in ms.
pub fn made(admission: &Admission, rule: &str, body: Option<&str>) -> Result<Vec<u8>, StoreError> {
    let Admission {
        user,
        key,
        submission,
        fingerprint,
        ..
    } = admission;
    let mut packed = Packed::default();
    packed
        .text(user.as_str())
        .text(&submission.task_type.name)
        .maybe_text(key.as_ref().map(|key| key.as_str()))
        .bytes(fingerprint.digest().as_bytes())
        .text(rule)
        .flag(submission.mode() != DedupMode::None)
        .number(span_ms(submission.window()))
        .number(submission.task_type.retry.max_attempts.into());
    retain(&mut packed, &submission.task_type.retention);
    if submission.tags.is_empty() {
        packed.nothing();
    } else {
        let names: Vec<_> = submission.tags.keys().collect();
        packed.text(&to_json(&names)?);
    }
    Ok(packed.maybe_text(body).take())
}

/// What a level of priority is worth, where that is not what record.lua takes it for.
pub fn ageing_ms(task_type: &TaskType) -> Option<i64> {
    (task_type.ageing != Priority::AGEING).then(|| span_ms(task_type.ageing))
}

/// What a callback says of the records of its deliveries: their priority, and all that follows from the values of
/// [`made`] up to the body.
pub fn made_of_delivery(user: &UserId, terms: &Terms) -> Result<Vec<u8>, StoreError> {
    let mut packed = Packed::default();
    packed
        .number(terms.priority.value().into())
        .text(user.as_str())
        .text(Callback::TASK_TYPE)
        .nothing()
        .bytes(NO_CONTENT.as_bytes())
        .text(&rule_text(&usual_rule(1))?)
        .flag(false)
        .number(0)
        .number(terms.max_attempts.into());
    retain(&mut packed, &terms.retention);
    Ok(packed.text(&to_json(&[Callback::TAG])?).take())
}

/// Of a record that answers for no content.
const NO_CONTENT: Sha256Digest = Sha256Digest::from_bytes([0; 32]);

fn retain(packed: &mut Packed, retention: &Retention) {
    packed
        .number(span_ms(retention.key))
        .number(span_ms(retention.result))
        .number(span_ms(retention.task))
        .number(span_ms(retention.failed_task))
        .number(span_ms(retention.file));
}

/// Lua counts exactly up to 2^53.
const SPAN_MS_MAX: i64 = 1 << 52;

pub fn span_ms(span: Duration) -> i64 {
    let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    ms.min(SPAN_MS_MAX)
}

fn digest(bytes: Option<&[u8]>) -> Result<Sha256Digest, StoreError> {
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.map(Sha256Digest::from_bytes).ok_or_else(senseless)
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

fn outcome(kind: Option<&str>, result: &str) -> Result<Option<Outcome>, StoreError> {
    Ok(match kind {
        Some("expired") => Some(Outcome::Expired),
        Some("inline") => {
            let raw = RawValue::from_string(result.to_owned()).map_err(|_| senseless())?;
            Some(Outcome::Inline(raw.into()))
        }
        Some("blob") => {
            let StoredBlob { name, size } = from_json(result)?;
            Some(Outcome::Blob { name, size })
        }
        _ => None,
    })
}

/// The usual rule is written as the version of its type alone: a record that is packed tightly holds it.
pub fn rule_text(rule: &FingerprintRule) -> Result<String, StoreError> {
    if *rule == usual_rule(rule.version) {
        Ok(rule.version.to_string())
    } else {
        to_json(rule)
    }
}

pub fn rule(text: &str) -> Result<FingerprintRule, StoreError> {
    match text.parse() {
        Ok(version) => Ok(usual_rule(version)),
        Err(_) => from_json(text),
    }
}

fn usual_rule(version: u32) -> FingerprintRule {
    FingerprintRule {
        algorithm: Algorithm::V1,
        scope: FingerprintScope::Type,
        version,
        ignore: Vec::new(),
        file_name: false,
    }
}

pub fn from_json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| senseless())
}

pub fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| senseless())
}
