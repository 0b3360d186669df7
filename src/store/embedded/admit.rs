//! The decision: new, a duplicate, or refused.

use super::conflicts::throttling;
use super::create::{create, unknown_file};
use super::join::{join, replay};
use super::key::BoundKey;
use super::record::Record;
use super::step::{Sql, Step};
use super::suppressed::Notes;
use crate::domain::file::BlobName;
use crate::domain::standing::{Failures, Standing};
use crate::domain::task::{State, Task};
use crate::domain::task_type::DedupMode;
use crate::domain::timestamp::Timestamp;
use crate::seeded_faults::SeededFault;
use crate::store::{Admission, AdmissionAnswer, Admitted, Checked, MatchedBy};

/// What the records say about a submission.
enum Verdict {
    New(Place),
    ByKey {
        record: Box<Record>,
        key: Box<BoundKey>,
    },
    ByFingerprint(Box<Record>),
    /// Other content, which the task throttles.
    ByValues(Box<Record>),
    KeyReused {
        differs: Vec<String>,
    },
    KeyForgotten,
}

/// Where a new task stands among those with its fingerprint.
#[derive(Clone, Copy, Default)]
pub struct Place {
    pub claim: i64,
    pub failures: Failures,
}

pub fn admit(
    step: &mut Step<'_>,
    admission: &Admission,
    notes: &Notes,
    queue_max: u64,
) -> rusqlite::Result<Admitted> {
    // The same step once more, after its outcome was unknown: another one may have taken the task's place since.
    if admission.matching.is_some()
        && let Some(record) = Record::by_id(&step.sql, &admission.user, &admission.task_id)?
    {
        return Ok(Admitted::New(answer(record.task, None)));
    }
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
            Ok(Admitted::New(answer(record.task, None)))
        }
        Verdict::ByKey { record, key } => replay(step, admission, *record, &key, notes),
        Verdict::ByFingerprint(record) if admission.submission.mode() == DedupMode::Reject => {
            Ok(Admitted::Rejected(Box::new(record.task)))
        }
        Verdict::ByFingerprint(record) => {
            join(step, admission, *record, MatchedBy::Fingerprint, notes)
        }
        Verdict::ByValues(record) => join(step, admission, *record, MatchedBy::DedupBy, notes),
        Verdict::New(place) => create(step, admission, place, queue_max),
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
        Verdict::ByValues(record) => Checked::Duplicate {
            expires_at: Some(record.task.created_at.plus(record.window)),
            task: Box::new(record.task),
            matched_by: MatchedBy::DedupBy,
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
        return judge_by_key(sql, admission, key);
    }
    if admission.submission.mode() == DedupMode::None {
        return Ok(Verdict::New(Place::default()));
    }
    if admission.submission.mode() == DedupMode::Throttle
        && let Some(record) = throttling(sql, admission, now)?
    {
        let record = Box::new(record);
        return Ok(
            match record.task.fingerprint == Some(admission.fingerprint) {
                true => Verdict::ByFingerprint(record),
                false => Verdict::ByValues(record),
            },
        );
    }
    let mut place = Place::default();
    if let Some(record) = Record::by_fingerprint(sql, &admission.user, &admission.fingerprint)? {
        let standing = standing(&record, admission, now);
        if standing == Standing::Answers {
            return Ok(Verdict::ByFingerprint(Box::new(record)));
        }
        place = Place {
            claim: record.claim + 1,
            failures: record.failures.carried_over(standing, record.window, now),
        };
    }
    Ok(match of_older_version(sql, admission, now)? {
        Some(record) => Verdict::ByFingerprint(Box::new(record)),
        None => Verdict::New(place),
    })
}

fn standing(record: &Record, admission: &Admission, now: Timestamp) -> Standing {
    let max = admission.submission.task_type.dedup.max_resubmissions;
    let (failures, window) = (record.failures, record.window);
    Standing::of(&record.task, record.held, failures, window, max, now)
}

/// A task of an older version of the type that answers, as long as it may still give a result or has given one.
fn of_older_version(
    sql: &Sql<'_>,
    admission: &Admission,
    now: Timestamp,
) -> rusqlite::Result<Option<Record>> {
    for fingerprint in &admission.older {
        let record = Record::by_fingerprint(sql, &admission.user, fingerprint)?;
        let answers = |record: &Record| {
            !matches!(record.task.state, State::Failed | State::Cancelled)
                && standing(record, admission, now) == Standing::Answers
        };
        if let Some(record) = record.filter(answers) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

fn judge_by_key(sql: &Sql<'_>, admission: &Admission, key: BoundKey) -> rusqlite::Result<Verdict> {
    if key.forgotten {
        return Ok(Verdict::KeyForgotten);
    }
    let repeats = admission.repeats(&key.fingerprint, &key.rule);
    if !repeats && !SeededFault::OtherContentTaken.is_on() {
        return Ok(Verdict::KeyReused {
            differs: admission.differing(&key.fields, &key.rule),
        });
    }
    let record = Record::by_seq(sql, key.seq)?.filter(|record| !record.tombstone);
    Ok(
        record.map_or(Verdict::KeyForgotten, |record| Verdict::ByKey {
            record: Box::new(record),
            key: Box::new(key),
        }),
    )
}

pub fn answer(task: Task, key_expires_at: Option<Timestamp>) -> AdmissionAnswer {
    AdmissionAnswer {
        task: Box::new(task),
        key_expires_at,
        ignored: Vec::new(),
        disowned: Vec::new(),
    }
}

/// The copies that came with a submission; for a duplicate none is needed.
pub fn uploads(admission: &Admission) -> Vec<BlobName> {
    admission
        .submission
        .files
        .iter()
        .filter_map(crate::domain::file::File::blob)
        .collect()
}
