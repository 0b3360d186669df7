//! The decision: new, a duplicate, or refused.

use rusqlite::params;

use super::claim::Claim;
use super::counters::Metric;
use super::ended::{EndedTask, Name};
use super::file;
use super::key::BoundKey;
use super::record::{Record, Submitted};
use super::step::{EndedEffect, Sql, Step};
use super::suppressed::{Notes, Suppressed};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File};
use crate::domain::fingerprint::{Fingerprint, FingerprintRule};
use crate::domain::standing::{Failures, Standing};
use crate::domain::task::{FencingToken, Outcome, State, Task};
use crate::domain::task_type::DedupMode;
use crate::domain::timestamp::Timestamp;
use crate::store::{Admission, AdmissionAnswer, Admitted, Checked, LedgerEntry, MatchedBy};

/// What the records say about a submission.
enum Verdict {
    New(Failures),
    ByKey {
        record: Box<Record>,
        key: Box<BoundKey>,
    },
    ByFingerprint(Box<Record>),
    KeyReused {
        differs: Vec<String>,
    },
    KeyForgotten,
}

pub fn admit(
    step: &mut Step<'_>,
    admission: &Admission,
    notes: &Notes,
    queue_max: u64,
) -> rusqlite::Result<Admitted> {
    match judge(&step.sql, admission, step.now)? {
        Verdict::KeyForgotten => Ok(Admitted::KeyForgotten),
        Verdict::KeyReused { differs } => {
            step.tally(&admission.user, |tally| tally.key_reused += 1);
            Ok(Admitted::KeyReused { differs })
        }
        // The same step once more, after its outcome was unknown.
        Verdict::ByKey { record, .. } | Verdict::ByFingerprint(record)
            if record.task.id == admission.task_id =>
        {
            Ok(Admitted::New(answer(
                record.task,
                None,
                Vec::new(),
                Vec::new(),
            )))
        }
        Verdict::ByKey { record, key } => Ok(replay(step, admission, *record, &key, notes)),
        Verdict::ByFingerprint(record) if admission.submission.mode() == DedupMode::Reject => {
            Ok(Admitted::Rejected(Box::new(record.task)))
        }
        Verdict::ByFingerprint(record) => join(step, admission, *record, notes),
        Verdict::New(failures) => create(step, admission, failures, queue_max),
    }
}

pub fn check(sql: &Sql<'_>, admission: &Admission, now: Timestamp) -> rusqlite::Result<Checked> {
    Ok(match judge(sql, admission, now)? {
        Verdict::KeyForgotten => Checked::KeyForgotten,
        Verdict::KeyReused { differs } => Checked::KeyReused { differs },
        Verdict::ByKey { record, key } => Checked::Duplicate {
            task: Box::new(record.task),
            matched_by: MatchedBy::IdempotencyKey,
            expires_at: key.expires_at,
        },
        Verdict::ByFingerprint(record) => Checked::Duplicate {
            expires_at: record.task.dedup_expires_at,
            task: Box::new(record.task),
            matched_by: MatchedBy::Fingerprint,
        },
        Verdict::New(_) => match unknown_file(sql, admission)? {
            Some(sha256) => Checked::FileUnknown(sha256),
            None => Checked::New,
        },
    })
}

fn judge(sql: &Sql<'_>, admission: &Admission, now: Timestamp) -> rusqlite::Result<Verdict> {
    if let Some(key) = &admission.key
        && let Some(key) = BoundKey::find(sql, &admission.user, key, now)?
    {
        if key.forgotten {
            return Ok(Verdict::KeyForgotten);
        }
        if !admission.repeats(&key.fingerprint, &key.rule) {
            return Ok(Verdict::KeyReused {
                differs: admission.differing(&key.fields, &key.rule),
            });
        }
        return Ok(
            match Record::by_seq(sql, key.seq)?.filter(|record| !record.tombstone) {
                Some(record) => Verdict::ByKey {
                    record: Box::new(record),
                    key: Box::new(key),
                },
                None => Verdict::KeyForgotten,
            },
        );
    }
    if admission.submission.mode() == DedupMode::None {
        return Ok(Verdict::New(Failures::default()));
    }
    let Some(claim) = Claim::find(sql, &admission.user, &admission.fingerprint)? else {
        return Ok(Verdict::New(Failures::default()));
    };
    let window = admission.submission.window();
    let max_resubmissions = admission.submission.task_type.dedup.max_resubmissions;
    Ok(match claim.standing(sql, window, max_resubmissions, now)? {
        (Standing::Answers, Some(record)) => Verdict::ByFingerprint(Box::new(record)),
        (Standing::Resubmission, _) => Verdict::New(Failures {
            resubmissions: claim.failures.resubmissions + 1,
            ..claim.failures
        }),
        (Standing::Free | Standing::Answers, _) => Verdict::New(Failures::default()),
    })
}

fn replay(
    step: &mut Step<'_>,
    admission: &Admission,
    record: Record,
    key: &BoundKey,
    notes: &Notes,
) -> Admitted {
    let matched_by = MatchedBy::IdempotencyKey;
    let recorded = Some((key.fingerprint, key.rule.clone()));
    let task = suppress(
        step,
        admission,
        &record,
        matched_by,
        notes,
        recorded,
        key.expires_at,
    );
    Admitted::Duplicate {
        answer: answer(task, key.expires_at, Vec::new(), uploads(admission)),
        matched_by,
    }
}

fn join(
    step: &mut Step<'_>,
    admission: &Admission,
    mut record: Record,
    notes: &Notes,
) -> rusqlite::Result<Admitted> {
    let ignored = apply_to_existing(step, admission, &mut record)?;
    let key_expires_at = match &admission.key {
        Some(key) => BoundKey::bind(step, admission, key, &record)?,
        None => None,
    };
    let matched_by = MatchedBy::Fingerprint;
    let task = suppress(
        step,
        admission,
        &record,
        matched_by,
        notes,
        None,
        record.task.dedup_expires_at,
    );
    Ok(Admitted::Duplicate {
        answer: answer(task, key_expires_at, ignored, uploads(admission)),
        matched_by,
    })
}

/// The earliest start and the highest priority win. What else a duplicate asks for is named as ignored.
fn apply_to_existing(
    step: &mut Step<'_>,
    admission: &Admission,
    record: &mut Record,
) -> rusqlite::Result<Vec<&'static str>> {
    let submission = &admission.submission;
    let mut ignored = Vec::new();
    let waits = matches!(
        record.task.state,
        State::Scheduled | State::Queued | State::Retrying
    );
    if let Some(priority) = submission.priority
        && priority != record.task.priority
    {
        if waits && priority < record.task.priority {
            step.sql.execute(
                "UPDATE task SET priority = ?2 WHERE seq = ?1",
                params![record.seq, priority.value()],
            )?;
            record.task.priority = priority;
        } else {
            ignored.push("/priority");
        }
    }
    if record.task.state == State::Scheduled {
        let start = submission.starts_at(step.now).unwrap_or(step.now);
        if record.due_at.is_some_and(|due| start < due) {
            start_sooner(step, record, start)?;
        }
    }
    if !submission.tags.is_empty() && submission.tags != record.task.tags {
        ignored.push("/tags");
    }
    Ok(ignored)
}

fn start_sooner(
    step: &mut Step<'_>,
    record: &mut Record,
    start: Timestamp,
) -> rusqlite::Result<()> {
    if start > step.now {
        step.sql.execute(
            "UPDATE task SET due_at = ?2 WHERE seq = ?1",
            params![record.seq, start.as_ms()],
        )?;
        step.due(start);
        return Ok(());
    }
    step.sql.execute(
        "UPDATE task SET state = ?2, due_at = NULL, ready_at = ?3 WHERE seq = ?1",
        params![record.seq, State::Queued as i64, step.now.as_ms()],
    )?;
    let task = &mut record.task;
    step.moved(
        &task.user,
        &task.task_type,
        Some(task.state),
        Some(State::Queued),
    );
    task.state = State::Queued;
    step.effects.work = true;
    step.changed(&task.id);
    Ok(())
}

/// Notes the duplicate for the ledger, remembers an ended task for the next one, and gives the task as
/// the duplicate sees it.
fn suppress(
    step: &mut Step<'_>,
    admission: &Admission,
    record: &Record,
    matched_by: MatchedBy,
    notes: &Notes,
    recorded: Option<(Fingerprint, FingerprintRule)>,
    answers_until: Option<Timestamp>,
) -> Task {
    let ended = record.task.state.is_ended();
    let waiting = notes.suppressed(note(
        admission,
        record.seq,
        record.run_time(),
        matched_by,
        ended,
        step.now,
    ));
    let duplicates = record.task.duplicates + waiting;
    let task = Task {
        duplicates,
        ..record.task.clone()
    };
    let until = match (answers_until, record.result_until) {
        (Some(until), Some(result)) => until.min(result),
        (until, result) => until.or(result).unwrap_or(step.now),
    };
    if record.task.state == State::Succeeded
        && !matches!(task.outcome, Some(Outcome::Expired) | None)
    {
        let name = match (matched_by, &admission.key) {
            (MatchedBy::IdempotencyKey, Some(key)) => {
                Name::Key(admission.user.clone(), key.clone())
            }
            (MatchedBy::IdempotencyKey | MatchedBy::Fingerprint, _) => {
                Name::Fingerprint(admission.user.clone(), admission.fingerprint)
            }
        };
        let key_expires_at = recorded.as_ref().and(answers_until);
        step.effects
            .ended
            .push(EndedEffect::Remember(Box::new(EndedTask {
                seq: record.seq,
                task: task.clone(),
                run_time: record.run_time(),
                name,
                recorded,
                key_expires_at,
                until,
            })));
    }
    task
}

/// The ledger's entry for one duplicate.
pub fn note(
    admission: &Admission,
    seq: i64,
    run_time: std::time::Duration,
    matched_by: MatchedBy,
    ended: bool,
    now: Timestamp,
) -> Suppressed {
    let bytes: u64 = admission
        .submission
        .files
        .iter()
        .map(|file| file.size)
        .sum();
    let seconds = if ended { run_time.as_secs_f64() } else { 0.0 };
    Suppressed {
        seq,
        user: admission.user.clone(),
        entry: LedgerEntry {
            at: now,
            matched_by,
            key: admission.key.as_ref().map(|key| key.as_str().to_owned()),
            request_id: admission.request_id.clone(),
            bytes_saved: bytes,
            seconds_saved: seconds,
        },
        cache_hit: ended,
        bytes_not_sent: admission.bytes_not_sent,
        bytes_not_stored: bytes,
    }
}

fn create(
    step: &mut Step<'_>,
    admission: &Admission,
    failures: Failures,
    queue_max: u64,
) -> rusqlite::Result<Admitted> {
    if step.effects.unfinished >= i64::try_from(queue_max).unwrap_or(i64::MAX) {
        return Ok(Admitted::QueueFull);
    }
    if let Some(sha256) = unknown_file(&step.sql, admission)? {
        return Ok(Admitted::FileUnknown(sha256));
    }
    let (files, disowned) = take_files(step, admission)?;
    let record = new_record(step, admission, files);
    let Some(record) = insert(step, admission, record)? else {
        let known = Record::by_id(&step.sql, &admission.user, &admission.task_id)?;
        let task = known.ok_or(rusqlite::Error::QueryReturnedNoRows)?.task;
        return Ok(Admitted::New(answer(task, None, Vec::new(), Vec::new())));
    };
    if let Some(fingerprint) = &record.task.fingerprint {
        Claim::write(step, &admission.user, fingerprint, record.seq, failures)?;
    }
    if let Some(key) = &admission.key {
        BoundKey::bind(step, admission, key, &record)?;
    }
    for (name, value) in &record.task.tags {
        let row = params![admission.user.as_str(), name, record.seq, value];
        step.sql
            .execute("INSERT INTO tag VALUES (?1, ?2, ?3, ?4)", row)?;
    }
    step.moved(
        &admission.user,
        &record.task.task_type,
        None,
        Some(record.task.state),
    );
    step.tally(&admission.user, |tally| tally.accepted += 1);
    match record.due_at {
        Some(at) => step.due(at),
        None => step.effects.work = true,
    }
    Ok(Admitted::New(answer(
        record.task,
        None,
        Vec::new(),
        disowned,
    )))
}

/// A file that was neither uploaded before nor with this submission.
fn unknown_file(sql: &Sql<'_>, admission: &Admission) -> rusqlite::Result<Option<Sha256Digest>> {
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

fn new_record(step: &Step<'_>, admission: &Admission, files: Vec<File>) -> Record {
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
    }
}

/// `None` when there is a task with this id already.
fn insert(
    step: &Step<'_>,
    admission: &Admission,
    mut record: Record,
) -> rusqlite::Result<Option<Record>> {
    let task = &record.task;
    let submitted = Submitted {
        params: task.params.clone(),
        files: task.files.clone(),
        tags: task.tags.clone(),
        scheduled_at: task.scheduled_at.map(Timestamp::as_ms),
        window_ms: u64::try_from(record.window.as_millis()).unwrap_or(u64::MAX),
        budget: record.budget,
        retention: record.retention,
        key: record.key.clone(),
    };
    let submitted = serde_json::to_string(&submitted)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let inserted = step.sql.execute(
        "INSERT INTO task (id, user, type, state, fingerprint, priority, max_attempts, created_at, ready_at, due_at, \
         submission) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING",
        params![
            task.id.as_str(),
            admission.user.as_str(),
            task.task_type,
            task.state as i64,
            task.fingerprint.map(|fingerprint| *fingerprint.digest().as_bytes()),
            task.priority.value(),
            task.max_attempts,
            task.created_at.as_ms(),
            record.ready_at.map(Timestamp::as_ms),
            record.due_at.map(Timestamp::as_ms),
            submitted
        ],
    )?;
    record.seq = step.sql.last_insert_rowid();
    Ok((inserted > 0).then_some(record))
}

fn uploads(admission: &Admission) -> Vec<BlobName> {
    admission
        .submission
        .files
        .iter()
        .filter_map(File::blob)
        .collect()
}

fn answer(
    task: Task,
    key_expires_at: Option<Timestamp>,
    ignored: Vec<&'static str>,
    disowned: Vec<BlobName>,
) -> AdmissionAnswer {
    AdmissionAnswer {
        task: Box::new(task),
        key_expires_at,
        ignored,
        disowned,
    }
}

/// Counts how long a task was ready before it was leased.
pub fn queue_wait(step: &mut Step<'_>, record: &Record) {
    if let Some(ready_at) = record.ready_at {
        let waited = step.now.since(ready_at);
        step.effects
            .counters
            .latency(&record.task.user, Metric::QueueWait, waited);
    }
}
