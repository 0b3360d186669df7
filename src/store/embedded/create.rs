//! New tasks.

use rusqlite::{OptionalExtension, params};

use super::admit::{Place, answer};
use super::conflicts::Conflicts;
use super::key::BoundKey;
use super::record::{Record, Submitted, fingerprint_hash, id_hash, short_hash};
use super::step::{Sql, Step};
use super::{callbacks, file, turns};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::task::{FencingToken, State, Task, TaskId};
use crate::domain::task_type::DedupMode;
use crate::domain::timestamp::Timestamp;
use crate::seeded_faults::SeededFault;
use crate::store::{Admission, AdmissionAnswer, Admitted};

pub fn create(
    step: &mut Step<'_>,
    admission: &Admission,
    place: Place,
    queue_max: u64,
) -> rusqlite::Result<Admitted> {
    // The same step once more, after its outcome was unknown.
    if let Some(record) = Record::by_id(&step.sql, &admission.user, &admission.task_id)? {
        return Ok(Admitted::New(answer(record.task, None)));
    }
    let conflicts = Conflicts::of(step, admission)?;
    let unfinished = step.effects.unfinished - conflicts.giving_way.len() as i64;
    let is_full = unfinished >= i64::try_from(queue_max).unwrap_or(i64::MAX);
    if is_full && !SeededFault::QueueWithoutBound.is_on() {
        return Ok(Admitted::QueueFull);
    }
    if let Some(unfinished_max) = admission.unfinished_max {
        let own = step.unfinished_of(&admission.user)?;
        if own.saturating_sub(conflicts.giving_way.len() as u64) >= unfinished_max {
            return Ok(Admitted::QuotaExceeded { unfinished_max });
        }
    }
    if let Some(sha256) = unknown_file(&step.sql, admission)? {
        return Ok(Admitted::FileUnknown(sha256));
    }
    let (files, disowned) = take_files(step, admission)?;
    let mut record = new_record(step, admission, place, files);
    let ignored = conflicts.enter(&mut record, admission, step.now);
    let record = insert(step, record)?;
    conflicts.supersede(step, &record)?;
    if let Some(key) = &admission.key
        && !SeededFault::KeyNotBound.is_on()
    {
        BoundKey::bind(step, admission, key, &record)?;
    }
    step.moved(
        &admission.user,
        &record.task.task_type,
        None,
        Some(record.task.state),
    );
    step.changed(&record.task.id);
    step.tally(&admission.user, |tally| tally.accepted += 1);
    match record.due_at {
        Some(at) => step.due(at),
        None => turns::queued(step, &record.task.task_type, record.task.user.as_str())?,
    }
    Ok(Admitted::New(AdmissionAnswer {
        ignored,
        disowned,
        ..answer(record.task, None)
    }))
}

/// The second step of [`SeededFault::QueuedApart`].
pub fn queue(step: &mut Step<'_>, id: &TaskId) -> rusqlite::Result<()> {
    let row = params![id.as_str(), State::Scheduled as i64, State::Queued as i64];
    let queued: Option<(String, String)> = step
        .sql
        .prepare_cached(
            "UPDATE task SET state = ?3 WHERE id = ?1 AND state = ?2 AND due_at IS NULL RETURNING type, user",
        )?
        .query_row(row, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match queued {
        Some((task_type, user)) => turns::queued(step, &task_type, &user),
        None => Ok(()),
    }
}

/// A file that was neither uploaded before nor with this submission.
pub fn unknown_file(
    sql: &Sql<'_>,
    admission: &Admission,
) -> rusqlite::Result<Option<Sha256Digest>> {
    for file in &admission.submission.files {
        if file.generation.is_none() && file::find(sql, &admission.user, &file.sha256)?.is_none() {
            return Ok(Some(file.sha256));
        }
    }
    Ok(None)
}

/// Decides which stored copies the task uses; gives those that came with it and are not needed.
fn take_files(
    step: &Step<'_>,
    admission: &Admission,
) -> rusqlite::Result<(Vec<File>, Vec<BlobName>)> {
    let retention = admission.submission.task_type.retention;
    let mut files = Vec::new();
    let mut disowned = Vec::new();
    for file in &admission.submission.files {
        let taken = file::adopt(step, &admission.user, file, step.now.plus(retention.file))?;
        if taken.generation != file.generation {
            disowned.extend(file.blob());
        }
        files.push(File {
            generation: taken.generation,
            size: taken.size,
            ..file.clone()
        });
    }
    file::reference(step, &admission.user, &files)?;
    Ok((files, disowned))
}

fn new_record(step: &Step<'_>, admission: &Admission, place: Place, files: Vec<File>) -> Record {
    let submission = &admission.submission;
    let task_type = &submission.task_type;
    let starts_at = submission.starts_at(step.now);
    let waits = starts_at.filter(|&at| at > step.now);
    let counts = submission.mode() != DedupMode::None;
    let task = Task {
        id: admission.task_id.clone(),
        task_type: task_type.name.clone(),
        state: if waits.is_some() {
            State::Scheduled
        } else {
            State::Queued
        },
        user: admission.user.clone(),
        fingerprint: counts.then_some(admission.fingerprint),
        params: submission.params_text(),
        files,
        priority: submission.priority(),
        tags: submission.tags.clone(),
        attempt: 0,
        max_attempts: task_type.retry.max_attempts,
        progress: None,
        created_at: step.now,
        scheduled_at: starts_at,
        started_at: None,
        finished_at: None,
        next_attempt_at: None,
        dedup_expires_at: None,
        outcome: None,
        error: None,
        duplicates: 0,
        superseded_by: None,
        throttles_until: (submission.mode() == DedupMode::Throttle)
            .then(|| step.now.plus(submission.window())),
        changes: Default::default(),
    };
    Record {
        seq: 0,
        task,
        token: FencingToken(0),
        held: false,
        tombstone: false,
        ready_at: waits.is_none().then_some(step.now),
        due_at: waits,
        result_until: None,
        kept_until: None,
        window: submission.window(),
        budget: task_type.retry.max_attempts,
        retention: task_type.retention,
        key: admission.key.as_ref().map(|key| key.as_str().to_owned()),
        claim: place.claim,
        failures: place.failures,
        callbacks: submission.callback.iter().cloned().collect(),
        matching: admission.matching,
        chained_at: None,
        behind: false,
        keyless: false,
        slot: submission
            .concurrency_key()
            .map(|key| key.as_str().to_owned()),
        ageing: task_type.ageing,
    }
}

/// Writes the row of a task that is new, and its tags.
pub fn insert(step: &Step<'_>, mut record: Record) -> rusqlite::Result<Record> {
    let task = &record.task;
    let submitted = Submitted::of(&record).to_json()?;
    let callbacks = callbacks::column(&record.callbacks)?;
    let state = match SeededFault::QueuedApart.is_on() {
        true => State::Scheduled,
        false => task.state,
    };
    step.sql.execute(
        "INSERT INTO task (id, id_hash, user, type, state, fingerprint, fingerprint_hash, claim, resubmissions, \
         first_failed_at, priority, max_attempts, created_at, ready_at, due_at, submission, \
         callbacks, matching, matching_hash, throttles, chained_at, behind, slot, ageing) VALUES (?1, ?2, ?3, ?4, ?5, ?6, \
         ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
        params![
            task.id.as_str(),
            id_hash(&task.id),
            task.user.as_str(),
            task.task_type,
            state as i64,
            task.fingerprint.map(|fingerprint| *fingerprint.digest().as_bytes()),
            task.fingerprint.as_ref().map(fingerprint_hash),
            record.claim,
            record.failures.resubmissions,
            record.failures.first_failed_at.map(Timestamp::as_ms),
            task.priority.value(),
            task.max_attempts,
            task.created_at.as_ms(),
            record.ready_at.map(Timestamp::as_ms),
            record.due_at.map(Timestamp::as_ms),
            submitted,
            callbacks,
            record.matching.map(|matching| *matching.digest().as_bytes()),
            record.matching.map(|matching| short_hash(matching.digest())),
            task.throttles_until.is_some(),
            record.chained_at.map(Timestamp::as_ms),
            record.behind,
            record.slot,
            i64::try_from(record.ageing.as_millis()).unwrap_or(i64::MAX)
        ],
    )?;
    record.seq = step.sql.last_insert_rowid();
    for (name, value) in &record.task.tags {
        let row = params![record.task.user.as_str(), name, record.seq, value];
        step.sql
            .execute("INSERT INTO tag VALUES (?1, ?2, ?3, ?4)", row)?;
    }
    Ok(record)
}
