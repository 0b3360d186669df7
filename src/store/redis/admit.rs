//! The decision, as its script is asked and answers.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::ends;
use super::keys::{self, Partition};
use super::lines::{Lines, Together};
use super::link::RESPONSE_WAIT_MAX;
use super::memory::{Answered, Memory};
use super::packed::Packed;
use super::record::{
    Body, Record, SHORT_BYTES_MAX, ageing_ms, from_json, made, made_of_delivery, rule as read_rule,
    rule_text, span_ms, to_json, with_copies,
};
use super::reply::{Reply, senseless};
use super::scripts::{ADMIT, CHECK, Script};
use super::step::{Step, Steps, unavailable};
use super::suppressed::{Notes, Suppressed};
use crate::domain::callback::Callback;
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File, Generation};
use crate::domain::fingerprint::{Fingerprint, FingerprintRule};
use crate::domain::submission::{Start, Submission};
use crate::domain::task::{State, Task};
use crate::domain::task_type::DedupMode;
use crate::domain::timestamp::Timestamp;
use crate::seeded_faults::SeededFault;
use crate::store::{
    Admission, AdmissionAnswer, Admitted, Checked, LedgerEntry, MatchedBy, StoreError,
};

/// Rules that a key may have been recorded with, one after the other, before the store is called confused.
const RULES_TRIED_MAX: usize = 3;

/// Keys and arguments of a submission without files, as many as admit.lua says.
const ARGS_EACH: usize = 5;
const FILE_PARTS: usize = 5;

/// A submission as the script is asked: its keys and arguments.
pub struct Ask {
    keys: [String; 3],
    args: Vec<Vec<u8>>,
}

/// The script, and what it is asked of all of them.
fn step(script: &'static Script, root: &str, all: &[Ask]) -> Step {
    let keys = all.iter().flat_map(|ask| &ask.keys).map(String::as_str);
    let keys: Vec<&str> = iter::once(root).chain(keys).collect();
    let mut step = Step::new(script, &keys);
    for arg in all.iter().flat_map(|ask| &ask.args) {
        step.also(arg);
    }
    step
}

impl Together for Ask {
    type Answer = Reply;
    const BATCH_MAX: usize = 256;

    fn bytes(&self) -> usize {
        self.args.iter().map(Vec::len).sum()
    }

    async fn step(steps: &Steps, root: &str, all: &[Self]) -> Result<Vec<Reply>, StoreError> {
        let mut replies = steps.take(step(&ADMIT, root, all)).await?;
        all.iter().map(|_| replies.part()).collect()
    }
}

/// How a submission gets to its script.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// In company of others.
    Admit(&'a Steps, &'a Lines<Ask>, Partition),
    Check(&'a Steps),
}

impl<'a> Way<'a> {
    fn steps(&self) -> &'a Steps {
        match *self {
            Way::Admit(steps, ..) | Way::Check(steps) => steps,
        }
    }

    async fn ask(&self, root: &str, ask: Ask, until: Instant) -> Result<Reply, StoreError> {
        match *self {
            Way::Admit(steps, lines, partition) => {
                lines.take(steps, (partition, root), ask, until).await
            }
            Way::Check(steps) => {
                let asked = steps.take(step(&CHECK, root, &[ask]));
                let late = |_| unavailable("no answer in time");
                timeout_at(until, asked).await.map_err(late)?
            }
        }
    }
}

/// What the script has decided: its word, and what belongs to it.
type Decided = (String, Reply);

/// A submission on its way to the script.
pub struct Question<'a> {
    admission: &'a Admission,
    root: &'a str,
    /// Unfinished tasks that this partition may hold.
    room: u64,
    /// The rule that the key turned out to be recorded with.
    recorded_rule: Option<FingerprintRule>,
    /// Whether the key is to remember more than its task does.
    with_fields: bool,
    params: Arc<RawValue>,
}

impl<'a> Question<'a> {
    pub fn new(admission: &'a Admission, root: &'a str, room: u64) -> Self {
        Question {
            admission,
            root,
            room,
            recorded_rule: None,
            // What is throttled has other content than its task; and what is asked twice comes behind those after
            // it in a batch, which may have taken its place by then.
            with_fields: admission.key.is_some() && admission.matching.is_some(),
            params: admission.submission.params_text(),
        }
    }

    /// Asks, and asks once more when the record was made under another rule than today's.
    async fn ask(&mut self, way: Way<'_>) -> Result<Decided, StoreError> {
        let deadline = Instant::now() + RESPONSE_WAIT_MAX;
        for _ in 0..RULES_TRIED_MAX {
            let reply = way.ask(self.root, self.put()?, deadline).await?;
            if let Some(decided) = self.hear(reply)? {
                return Ok(decided);
            }
        }
        Err(senseless())
    }

    /// None when more has to be said, and the question asked again.
    fn hear(&mut self, mut reply: Reply) -> Result<Option<Decided>, StoreError> {
        let word = reply.word()?;
        match word.as_str() {
            "other-rule" => self.recorded_rule = Some(read_rule(&reply.word()?)?),
            "fields-wanted" => self.with_fields = true,
            "broken" => return Err(unavailable(&format!("admit: {}", reply.word()?))),
            _ => return Ok(Some((word, reply))),
        }
        Ok(None)
    }

    fn put(&self) -> Result<Ask, StoreError> {
        let Admission {
            task_id,
            user,
            key,
            submission,
            rule,
            fingerprint,
            ..
        } = self.admission;
        let nothing = || self.root.to_owned();
        let key = key.as_ref().map(|key| keys::key(self.root, user, key));
        let claim = match submission.mode() {
            DedupMode::None => nothing(),
            DedupMode::Return
            | DedupMode::Reject
            | DedupMode::Replace
            | DedupMode::Debounce
            | DedupMode::Throttle
            | DedupMode::KeepLast => keys::claim(self.root, fingerprint),
        };
        let body = self.body()?;
        let (short, long) = match body.len() {
            0..=SHORT_BYTES_MAX => (Some(body.as_str()), ""),
            _ => (None, body.as_str()),
        };
        let made = made(self.admission, &rule_text(rule)?, short)?;
        let asked = self.asked()?;
        let files = &submission.files;
        let mut args = Vec::with_capacity(ARGS_EACH + FILE_PARTS * files.len());
        args.extend([task_id.as_str().into(), made, asked, long.into()]);
        args.push(files.len().to_string().into());
        for file in files {
            args.extend([
                file.sha256.to_string().into(),
                file.generation
                    .as_ref()
                    .map_or("", Generation::as_str)
                    .into(),
                file.size.to_string().into(),
                file.name.as_deref().unwrap_or_default().into(),
                file.media_type.as_deref().unwrap_or_default().into(),
            ]);
        }
        Ok(Ask {
            keys: [
                keys::task(self.root, task_id),
                key.unwrap_or_else(nothing),
                claim,
            ],
            args,
        })
    }

    /// Whether nothing is asked but to run it as soon as it can be, if its own content is new.
    fn is_plain(&self) -> bool {
        let submission = &self.admission.submission;
        submission.start == Start::Now
            && submission.files.is_empty()
            && submission.tags.is_empty()
            && submission.callback.is_none()
            && self.admission.older.is_empty()
            && self.admission.matching.is_none()
    }

    /// What only this step needs to know, packed.
    fn asked(&self) -> Result<Vec<u8>, StoreError> {
        let submission = &self.admission.submission;
        let (start, start_ms) = match submission.start {
            Start::Now => ("now", 0),
            Start::At(at) => ("at", at.as_ms()),
            Start::After(delay) => ("after", span_ms(delay)),
        };
        let priority_asked = submission.priority.map(|p| i64::from(p.value()));
        let mut packed = Packed::default();
        packed
            .flag(self.is_plain())
            .text(submission.mode().name())
            .number(submission.task_type.dedup.max_resubmissions.into())
            .maybe_number(priority_asked)
            .number(submission.priority().value().into())
            .text(start)
            .number(start_ms)
            .number(limit(self.room))
            .maybe_number(self.admission.unfinished_max.map(limit))
            .maybe_number(ageing_ms(&submission.task_type))
            .maybe_text(
                submission
                    .concurrency_key()
                    .as_ref()
                    .map(|key| key.as_str()),
            );
        let older = self.admission.older.iter();
        let older: Vec<u8> = older.flat_map(|one| *one.digest().as_bytes()).collect();
        match older.is_empty() {
            true => packed.nothing(),
            false => packed.bytes(&older),
        };
        match &self.recorded_rule {
            Some(recorded) => packed
                .text(&rule_text(recorded)?)
                .bytes(self.fingerprint_under(recorded).digest().as_bytes()),
            None => packed.nothing().nothing(),
        };
        let callback = submission.callback.as_ref();
        let matching = self.admission.matching.as_ref();
        if self.with_fields {
            packed.text(&to_json(&self.admission.fields())?);
        } else if callback.is_some() || matching.is_some() {
            packed.nothing();
        }
        if let Some(Callback { url, terms }) = callback {
            let terms = made_of_delivery(&self.admission.user, terms)?;
            packed.text(url).bytes(&terms);
        } else if matching.is_some() {
            packed.nothing().nothing();
        }
        if let Some(matching) = matching {
            let debounce = submission.debounce();
            packed
                .bytes(matching.digest().as_bytes())
                .maybe_number(debounce.map(|debounce| span_ms(debounce.delay)))
                .maybe_number(debounce.map(|debounce| span_ms(debounce.max_delay)));
        }
        Ok(packed.take())
    }

    fn fingerprint_under(&self, rule: &FingerprintRule) -> Fingerprint {
        let Admission {
            submission, user, ..
        } = self.admission;
        submission.fingerprint(user, rule)
    }

    fn body(&self) -> Result<String, StoreError> {
        let submission = &self.admission.submission;
        to_json(&Body {
            params: self.params.clone(),
            files: submission.files.clone(),
            tags: submission.tags.clone(),
            run_at: match submission.start {
                Start::At(at) => Some(at),
                Start::Now | Start::After(_) => None,
            },
        })
    }

    /// Reads how the key was recorded: its rule, and its fields unless they are those of its task.
    fn differing(&self, reply: &mut Reply) -> Result<Vec<String>, StoreError> {
        let rule = read_rule(&reply.word()?)?;
        let fields = match reply.word()?.as_str() {
            "" => Record::read(reply.part()?)?.fields(&rule)?,
            fields => from_json(fields)?,
        };
        Ok(self.admission.differing(&fields, &rule))
    }
}

/// What answers are remembered in.
#[derive(Clone, Copy)]
pub struct Records<'a> {
    pub memory: &'a Memory,
    pub notes: &'a Notes,
}

pub async fn admit(
    way: Way<'_>,
    mut question: Question<'_>,
    partition: Partition,
    records: Records<'_>,
) -> Result<Admitted, StoreError> {
    let asked_at = Instant::now();
    let (steps, root) = (way.steps(), question.root);
    let decided = match question.ask(way).await {
        Err(StoreError::Unavailable(_)) if SeededFault::RedisUnknownMeansDone.is_on() => {
            let now = Timestamp::from_ms(0);
            return Ok(Admitted::New(created(
                question.admission,
                question.params,
                now,
                "",
            )));
        }
        answer => answer?,
    };
    if decided.0 == "new" && SeededFault::RedisQueuedApart.is_on() {
        question.ask(way).await?;
    }
    admitted(
        (steps, root),
        question,
        decided,
        asked_at,
        partition,
        records,
    )
    .await
}

/// Admits many of one partition in their order.
pub async fn admit_many(
    (steps, lines): (&Steps, &Lines<Ask>),
    mut questions: Vec<Question<'_>>,
    partition: Partition,
    records: Records<'_>,
) -> Vec<Result<Admitted, StoreError>> {
    let mut all = Vec::with_capacity(questions.len());
    while !questions.is_empty() {
        let rest = questions.split_off(in_one_round(&questions));
        all.extend(admit_round(steps, lines, questions, partition, records).await);
        questions = rest;
    }
    all
}

/// How many of them may be asked before any is answered. What has to be asked twice comes behind those
/// after it, which must not be noticed: by none but one that brings other content under the same key.
fn in_one_round(questions: &[Question<'_>]) -> usize {
    let mut named = HashMap::new();
    for (at, question) in questions.iter().enumerate() {
        let Admission {
            user,
            key,
            fingerprint,
            ..
        } = question.admission;
        let Some(key) = key else { continue };
        if named.entry((user, key)).or_insert(fingerprint) != &fingerprint {
            return at;
        }
    }
    questions.len()
}

async fn admit_round(
    steps: &Steps,
    lines: &Lines<Ask>,
    questions: Vec<Question<'_>>,
    partition: Partition,
    records: Records<'_>,
) -> Vec<Result<Admitted, StoreError>> {
    let mut all: Vec<_> = questions.iter().map(|_| Err(senseless())).collect();
    let mut open: Vec<_> = questions.into_iter().enumerate().collect();
    for _ in 0..RULES_TRIED_MAX {
        let Some((_, first)) = open.first() else {
            break;
        };
        let (root, asked_at) = (first.root, Instant::now());
        let mut asks = Vec::with_capacity(open.len());
        open.retain(|(at, question)| match question.put() {
            Ok(ask) => {
                asks.push(ask);
                true
            }
            Err(error) => {
                all[*at] = Err(error);
                false
            }
        });
        let replies = lines.take_all(steps, (partition, root), asks).await;
        let (mut again, mut found) = (Vec::new(), Vec::new());
        for ((at, mut question), reply) in open.into_iter().zip(replies) {
            match reply.and_then(|reply| question.hear(reply)) {
                Ok(Some(decided)) => found.push(async move {
                    let place = (steps, root);
                    let one = admitted(place, question, decided, asked_at, partition, records);
                    (at, one.await)
                }),
                Ok(None) => again.push((at, question)),
                Err(error) => all[at] = Err(error),
            }
        }
        for (at, one) in join_all(found).await {
            all[at] = one;
        }
        open = again;
    }
    all
}

async fn admitted(
    (steps, root): (&Steps, &str),
    question: Question<'_>,
    (word, mut reply): Decided,
    asked_at: Instant,
    partition: Partition,
    Records { memory, notes }: Records<'_>,
) -> Result<Admitted, StoreError> {
    let admission = question.admission;
    let heard = |matched_by| Heard {
        asked_at,
        partition,
        matched_by,
        recorded_rule: question.recorded_rule.as_ref(),
    };
    Ok(match word.as_str() {
        "new" => {
            let now = Timestamp::from_ms(reply.number()?);
            Admitted::New(created(admission, question.params, now, &reply.word()?))
        }
        "newest" => {
            let task = Record::read(reply.part()?)?.task;
            let files = admission.submission.files.iter().zip(&task.files);
            let disowned = files.filter_map(not_taken).collect();
            let is_full = reply.word()? == "full";
            let ignored = is_full.then_some("/callback_url").into_iter().collect();
            Admitted::New(answer(task, None, ignored, disowned))
        }
        // The same step once more, after its outcome was unknown.
        "again" => {
            let task = Record::read(reply.part()?)?.task;
            Admitted::New(answer(task, None, Vec::new(), Vec::new()))
        }
        "by-key" => {
            let told = Told::read(reply)?;
            ends::stand(steps, root, &admission.user, [&told.record.task]).await?;
            duplicate(
                admission,
                told,
                heard(MatchedBy::IdempotencyKey),
                memory,
                notes,
            )
        }
        "by-content" | "by-values" => {
            let matched_by = match word.as_str() {
                "by-content" => MatchedBy::Fingerprint,
                _ => MatchedBy::DedupBy,
            };
            let told = Told::read(reply)?;
            ends::stand(steps, root, &admission.user, [&told.record.task]).await?;
            duplicate(admission, told, heard(matched_by), memory, notes)
        }
        "rejected" => {
            let task = Record::read(reply.part()?)?.task;
            ends::stand(steps, root, &admission.user, [&task]).await?;
            Admitted::Rejected(Box::new(task))
        }
        "key-reused" => Admitted::KeyReused {
            differs: question.differing(&mut reply)?,
        },
        "key-forgotten" => Admitted::KeyForgotten,
        "file-unknown" => Admitted::FileUnknown(sha256(&reply.word()?)?),
        "queue-full" => Admitted::QueueFull,
        "quota-exceeded" => Admitted::QuotaExceeded {
            unfinished_max: admission.unfinished_max.unwrap_or_default(),
        },
        _ => return Err(senseless()),
    })
}

pub async fn check(steps: &Steps, mut question: Question<'_>) -> Result<Checked, StoreError> {
    let (word, mut reply) = question.ask(Way::Check(steps)).await?;
    Ok(match word.as_str() {
        "new" => Checked::New,
        "by-key" => Checked::Duplicate {
            task: Box::new(Record::read(reply.part()?)?.task),
            matched_by: MatchedBy::IdempotencyKey,
            expires_at: reply.optional()?.map(Timestamp::from_ms),
        },
        "by-content" => {
            let task = Record::read(reply.part()?)?.task;
            Checked::Duplicate {
                expires_at: task.dedup_expires_at,
                task: Box::new(task),
                matched_by: MatchedBy::Fingerprint,
            }
        }
        "by-values" => {
            let task = Record::read(reply.part()?)?.task;
            Checked::Duplicate {
                expires_at: task.throttles_until,
                task: Box::new(task),
                matched_by: MatchedBy::DedupBy,
            }
        }
        "key-reused" => Checked::KeyReused {
            differs: question.differing(&mut reply)?,
        },
        "key-forgotten" => Checked::KeyForgotten,
        "file-unknown" => Checked::FileUnknown(sha256(&reply.word()?)?),
        _ => return Err(senseless()),
    })
}

/// The task as the script has recorded it: only the time and the copies were its choice.
fn created(
    admission: &Admission,
    params: Arc<RawValue>,
    now: Timestamp,
    copies: &str,
) -> AdmissionAnswer {
    let submission = &admission.submission;
    let task_type = &submission.task_type;
    let scheduled_at = submission.starts_at(now);
    let waits = scheduled_at.is_some_and(|at| at > now);
    let counts = submission.mode() != DedupMode::None;
    let files = with_copies(submission.files.clone(), Some(copies));
    let disowned = submission.files.iter().zip(&files).filter_map(not_taken);
    let disowned = disowned.collect();
    let task = Task {
        id: admission.task_id.clone(),
        task_type: task_type.name.clone(),
        state: if waits {
            State::Scheduled
        } else {
            State::Queued
        },
        user: admission.user.clone(),
        fingerprint: counts.then_some(admission.fingerprint),
        params,
        files,
        priority: submission.priority(),
        tags: submission.tags.clone(),
        attempt: 0,
        max_attempts: task_type.retry.max_attempts,
        progress: None,
        created_at: now,
        scheduled_at,
        started_at: None,
        finished_at: None,
        next_attempt_at: None,
        dedup_expires_at: None,
        outcome: None,
        error: None,
        duplicates: 0,
        superseded_by: None,
        throttles_until: None,
        changes: Default::default(),
    };
    answer(task, None, Vec::new(), disowned)
}

/// The copy that came, when another one was taken.
fn not_taken((came, taken): (&File, &File)) -> Option<BlobName> {
    (came.generation != taken.generation)
        .then(|| came.blob())
        .flatten()
}

/// What a duplicate is told.
struct Told {
    now: Timestamp,
    record: Record,
    key_expires_at: Option<Timestamp>,
    /// How often a task was forgotten in the partition.
    changes: u64,
    /// Whether the task has as many callbacks as it may have, and does not take the one that came.
    callback_ignored: bool,
}

impl Told {
    fn read(mut reply: Reply) -> Result<Told, StoreError> {
        Ok(Told {
            now: Timestamp::from_ms(reply.number()?),
            record: Record::read(reply.part()?)?,
            key_expires_at: reply.optional()?.map(Timestamp::from_ms),
            changes: reply.number()?,
            callback_ignored: !reply.is_over() && reply.word()? == "full",
        })
    }
}

/// How a duplicate was found.
struct Heard<'a> {
    asked_at: Instant,
    partition: Partition,
    matched_by: MatchedBy,
    recorded_rule: Option<&'a FingerprintRule>,
}

/// Notes the duplicate for the ledger, remembers an ended task for the next one, and gives the task as the
/// duplicate sees it.
fn duplicate(
    admission: &Admission,
    told: Told,
    heard: Heard<'_>,
    memory: &Memory,
    notes: &Notes,
) -> Admitted {
    let matched_by = heard.matched_by;
    let Told {
        now,
        record: Record {
            mut task, window, ..
        },
        key_expires_at,
        changes,
        callback_ignored,
    } = told;
    let mut ignored = ignored(&admission.submission, &task, window);
    ignored.extend(callback_ignored.then_some("/callback_url"));
    task.duplicates += notes.suppressed(note(admission, &task, matched_by, now));
    let recorded = admission.key.as_ref().map(|_| match heard.recorded_rule {
        Some(rule) => {
            let fingerprint = admission.submission.fingerprint(&admission.user, rule);
            (fingerprint, rule.clone())
        }
        None => (admission.fingerprint, admission.rule.clone()),
    });
    let answered = Answered {
        asked_at: heard.asked_at,
        now,
        changes,
        matched_by,
        task: &task,
        run_time: Record::run_time(&task),
        window,
        recorded,
        key_expires_at,
    };
    memory.remember(admission, heard.partition, answered);
    let uploads = admission.submission.files.iter().filter_map(File::blob);
    Admitted::Duplicate {
        answer: answer(task, key_expires_at, ignored, uploads.collect()),
        matched_by,
    }
}

/// A duplicate of an ended task that is remembered needs no step.
pub fn from_memory(
    admission: &Admission,
    partition: Partition,
    memory: &Memory,
    notes: &Notes,
) -> Option<Admitted> {
    let (hit, now) = memory.answer(admission, partition)?;
    let task = hit.remembered.one_more();
    notes.suppressed(note(admission, &task, hit.matched_by, now));
    let ignored = ignored(&admission.submission, &task, hit.remembered.window);
    let uploads = admission.submission.files.iter().filter_map(File::blob);
    Some(Admitted::Duplicate {
        answer: answer(task, hit.key_expires_at, ignored, uploads.collect()),
        matched_by: hit.matched_by,
    })
}

/// The ledger's entry for one duplicate.
fn note(admission: &Admission, task: &Task, matched_by: MatchedBy, now: Timestamp) -> Suppressed {
    let bytes = admission.submission.files.iter().map(|file| file.size);
    let bytes: u64 = bytes.sum();
    let ended = task.state.is_ended();
    let seconds = if ended {
        Record::run_time(task).as_secs_f64()
    } else {
        0.0
    };
    Suppressed {
        task: task.id.clone(),
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

/// The members of a duplicate that an existing task does not take over; its callback is not among them.
fn ignored(submission: &Submission, task: &Task, window: Duration) -> Vec<&'static str> {
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

/// Beyond what a script can count there is no bound.
fn limit(max: u64) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

fn sha256(hex: &str) -> Result<Sha256Digest, StoreError> {
    Sha256Digest::parse_hex(hex).ok_or_else(senseless)
}
