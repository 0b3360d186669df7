//! Duplicates: what they add to the existing task, and what is noted of them.

use std::time::Duration;

use rusqlite::params;

use super::admit::{answer, uploads};
use super::key::BoundKey;
use super::record::Record;
use super::step::{EndedEffect, Step};
use super::suppressed::{Notes, Suppressed};
use super::{callbacks, conflicts};
use crate::domain::fingerprint::{Fingerprint, FingerprintRule};
use crate::domain::submission::{Start, Submission};
use crate::domain::task::{Outcome, State, Task};
use crate::domain::task_type::DedupMode;
use crate::domain::timestamp::Timestamp;
use crate::store::ended::{EndedTask, Name};
use crate::store::{Admission, AdmissionAnswer, Admitted, LedgerEntry, MatchedBy};

/// A duplicate by its key.
pub fn replay(
    step: &mut Step<'_>,
    admission: &Admission,
    mut record: Record,
    key: &BoundKey,
    notes: &Notes,
) -> rusqlite::Result<Admitted> {
    let matched_by = MatchedBy::IdempotencyKey;
    let ignored = apply(
        step,
        &admission.submission,
        &mut record,
        MatchedBy::IdempotencyKey,
    )?;
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
    let answer = AdmissionAnswer {
        ignored,
        disowned: uploads(admission),
        ..answer(task, key.expires_at)
    };
    Ok(Admitted::Duplicate { answer, matched_by })
}

/// A duplicate by its content, or by what it matches on; its key names the task from now on.
pub fn join(
    step: &mut Step<'_>,
    admission: &Admission,
    mut record: Record,
    matched_by: MatchedBy,
    notes: &Notes,
) -> rusqlite::Result<Admitted> {
    let ignored = apply(step, &admission.submission, &mut record, matched_by)?;
    let is_first = record.key.is_some() && !record.keyless && !record.task.state.is_ended();
    if admission.key.is_none() && is_first {
        step.sql
            .execute("UPDATE task SET keyless = 1 WHERE seq = ?1", [record.seq])?;
    }
    let key_expires_at = match &admission.key {
        // Its attempt has not confirmed yet that it stopped; the key stays free for the work anew.
        Some(_) if record.task.state == State::Cancelled => None,
        Some(key) => BoundKey::bind(step, admission, key, &record)?,
        None => None,
    };
    let task = suppress(
        step,
        admission,
        &record,
        matched_by,
        notes,
        None,
        record.task.dedup_expires_at,
    );
    let answer = AdmissionAnswer {
        ignored,
        disowned: uploads(admission),
        ..answer(task, key_expires_at)
    };
    Ok(Admitted::Duplicate { answer, matched_by })
}

/// The members of a duplicate that an existing task does not take over; its callback is not among them.
pub fn ignored(submission: &Submission, task: &Task, window: Duration) -> Vec<&'static str> {
    let mut ignored = Vec::new();
    if matches!(submission.start, Start::After(delay) if !delay.is_zero() && task.state != State::Scheduled)
    {
        ignored.push("/delay_seconds");
    }
    if submission.dedup.window.is_some_and(|asked| asked != window) {
        ignored.push("/dedup/window_seconds");
    }
    if submission
        .priority
        .is_some_and(|priority| priority != task.priority)
    {
        ignored.push("/priority");
    }
    if !submission.tags.is_empty() && submission.tags != task.tags {
        ignored.push("/tags");
    }
    ignored
}

/// The earliest start and the highest priority win. Gives the members that could not be applied.
fn apply(
    step: &mut Step<'_>,
    submission: &Submission,
    record: &mut Record,
    matched_by: MatchedBy,
) -> rusqlite::Result<Vec<&'static str>> {
    let waits = matches!(
        record.task.state,
        State::Scheduled | State::Queued | State::Retrying
    );
    if let Some(priority) = submission
        .priority
        .filter(|&priority| waits && priority < record.task.priority)
    {
        step.sql.execute(
            "UPDATE task SET priority = ?2 WHERE seq = ?1",
            params![record.seq, priority.value()],
        )?;
        record.task.priority = priority;
    }
    if submission.mode() == DedupMode::Debounce && record.chained_at.is_some() {
        // What was submitted before puts nothing off.
        if matched_by != MatchedBy::IdempotencyKey {
            conflicts::put_off(step, submission, record)?;
        }
    } else if record.task.state == State::Scheduled && !record.behind {
        let start = match submission.debounce() {
            Some(debounce) => step.now.plus(debounce.delay),
            None => submission.starts_at(step.now).unwrap_or(step.now),
        };
        if record.due_at.is_some_and(|due| start < due) {
            start_sooner(step, record, start)?;
        }
    }
    let mut ignored = ignored(submission, &record.task, record.window);
    if let Some(callback) = &submission.callback
        && !callbacks::join(step, record, callback)?
    {
        ignored.push("/callback_url");
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
    conflicts::start_now(step, record)
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
    let waiting = notes.waiting(record.seq) + step.effects.suppressed_of(record.seq) + 1;
    let note = note(
        admission,
        record.seq,
        record.run_time(),
        matched_by,
        ended,
        step.now,
    );
    step.effects.suppressed.push(note);
    let task = Task {
        duplicates: record.task.duplicates + waiting,
        ..record.task.clone()
    };
    let until = match (answers_until, record.result_until) {
        (Some(until), Some(result)) => until.min(result),
        (until, result) => until.or(result).unwrap_or(step.now),
    };
    // Whether an older version's task answers is asked anew each time.
    let is_of_older_version =
        matched_by == MatchedBy::Fingerprint && task.fingerprint != Some(admission.fingerprint);
    if record.task.state == State::Succeeded
        && !matches!(task.outcome, Some(Outcome::Expired) | None)
        && !is_of_older_version
        // What throttles is asked anew each time.
        && matched_by != MatchedBy::DedupBy
    {
        let name = match (matched_by, &admission.key) {
            (MatchedBy::IdempotencyKey, Some(key)) => {
                Name::Key(admission.user.clone(), key.clone())
            }
            (MatchedBy::IdempotencyKey | MatchedBy::Fingerprint | MatchedBy::DedupBy, _) => {
                Name::Fingerprint(admission.user.clone(), admission.fingerprint)
            }
        };
        let key_expires_at = recorded.as_ref().and(answers_until);
        step.effects
            .ended
            .push(EndedEffect::Remember(Box::new(EndedTask {
                id: record.seq,
                task: task.clone(),
                run_time: record.run_time(),
                window: record.window,
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
    run_time: Duration,
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
            request_id: admission.request_id.to_string(),
            bytes_saved: bytes,
            seconds_saved: seconds,
        },
        cache_hit: ended,
        bytes_not_sent: admission.bytes_not_sent,
        bytes_not_stored: bytes,
    }
}
