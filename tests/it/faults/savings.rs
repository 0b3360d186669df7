//! What was saved, told four times: by the answers that clients got, by the ledger of each task, by `/stats` and by a report
//! for each user. And what was executed, held against the attempts on record.
//!
//! The last three must agree to the millisecond and the byte. They may differ from the first by what nobody can know: a
//! request without an answer may have been noted, and a replica notes behind its answers, so that one that is killed
//! leaves out what it answered last.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use justonce::domain::timestamp::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::audit::{Recorded, list};
use super::clients::{Caller, Way};
use super::day::Day;
use super::intent::{Intent, Kind, read};
use super::seed::Seed;
use super::trace::Traces;
use super::violation::Rule;
use super::work::Submission;

/// Callers at a time.
const CALLERS: usize = 8;
/// Notes are written within a few hundredths of a second, where Redis answers.
const NOTED_WITHIN: Duration = Duration::from_secs(1);
/// A kill is written down before it is done.
const KILLED_WITHIN: Duration = Duration::from_millis(500);
/// Until all replicas have noted what they answered.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Entries of a task that its ledger keeps.
const LISTED_MAX: u64 = 100;

#[derive(Debug, Default)]
pub struct Savings {
    submissions: usize,
    tasks: usize,
    planned_duplicates: usize,
    by_kind: BTreeMap<Kind, Row>,
    answered: u64,
    unsure: u64,
    unnoted_at_most: u64,
    first_answer_lost: u64,
    /// By the ledgers, as by `/stats` and the reports.
    saved: Saved,
    cache_hits: u64,
    attempts: u64,
    attempts_counted: u64,
    reports: usize,
}

#[derive(Debug, Default)]
struct Row {
    tasks: u64,
    answers: u64,
    attempts: u64,
    seen_outside: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Saved {
    by_key: u64,
    by_content: u64,
    ms: u64,
    bytes: u64,
}

/// Of the ledger of a task.
#[derive(Deserialize)]
struct Entry {
    at: Timestamp,
    matched_by: String,
    bytes_saved: u64,
    seconds_saved: f64,
}

pub async fn settle(
    way: &Way,
    day: &Day,
    seed: Seed,
    traces: &Traces,
    killed_at: &[Instant],
) -> Savings {
    let books = Books { way, day, seed };
    let (recorded, stats) = books.settled().await;
    let mut savings = Savings {
        submissions: day.submissions.len(),
        tasks: day.kinds.len(),
        planned_duplicates: day.duplicates(),
        ..Savings::default()
    };
    books.executed(&recorded, traces, &stats, &mut savings);
    books.answered(killed_at, &mut savings);
    let of_users = books.in_ledgers(&recorded).await;
    for saved in of_users.values() {
        savings.saved.add(saved);
    }
    books.agree(&savings, &stats);
    savings.cache_hits = stats["cache_hits"].as_u64().unwrap_or(0);
    savings.reports = books.reported(&recorded, &of_users).await;
    savings
}

struct Books<'a> {
    way: &'a Way,
    day: &'a Day,
    seed: Seed,
}

impl Books<'_> {
    fn caller(&self, number: usize) -> Caller {
        let choices = self.seed.choices("savings", number);
        Caller::new(self.way, choices, number)
    }

    fn violated(&self, rule: Rule, detail: String) {
        self.way.ledger.violated(rule, detail);
    }

    fn expect(&self, what: &str, told: u64, right: u64) {
        if told != right {
            self.violated(
                Rule::Savings,
                format!("{what}: {told}, and {right} by the ledgers"),
            );
        }
    }

    /// All tasks by their users, and the counters of all time that belong to them.
    async fn settled(&self) -> (BTreeMap<String, Vec<Recorded>>, Value) {
        let deadline = Instant::now() + SETTLED_WITHIN;
        let mut caller = self.caller(0);
        loop {
            let before = self.stats(&mut caller).await;
            let mut recorded = BTreeMap::new();
            for user in self.way.work.users() {
                let tasks = list(&mut caller, &user).await;
                recorded.insert(user, tasks);
            }
            let listed: u64 = recorded
                .values()
                .flatten()
                .map(|task| task.duplicates)
                .sum();
            let is_settled = before["saved"]["executions"] == listed;
            if is_settled && self.stats(&mut caller).await["saved"] == before["saved"] {
                return (recorded, before);
            }
            if Instant::now() > deadline {
                self.violated(
                    Rule::Savings,
                    format!(
                        "tasks say {listed} duplicates, and /stats {}",
                        before["saved"]
                    ),
                );
                return (recorded, before);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn stats(&self, caller: &mut Caller) -> Value {
        let answer = caller.insist(&read("nobody", "/stats")).await;
        let answer = answer.expect("an answer from /stats");
        let stats: Value = serde_json::from_slice(&answer.body).unwrap();
        stats["windows"]["all"].clone()
    }

    /// What ran, as often as attempts say.
    fn executed(
        &self,
        recorded: &BTreeMap<String, Vec<Recorded>>,
        traces: &Traces,
        stats: &Value,
        savings: &mut Savings,
    ) {
        let mut left: HashMap<String, u32> = HashMap::new();
        for execution in traces.executions() {
            *left.entry(execution.id).or_default() += 1;
        }
        let asked_for = self.day.errands.asked_for();
        for task in recorded.values().flatten() {
            let Some(content) = task.content() else {
                continue;
            };
            let Some(kind) = self.way.work.kind_of(content) else {
                continue;
            };
            let is_seen = matches!(kind, Kind::Page | Kind::Hook | Kind::Mail);
            let outside = match is_seen {
                true => asked_for.get(&content).copied().unwrap_or(0),
                false => left.get(&task.id).copied().unwrap_or(0),
            };
            let is_right = match is_seen || kind.leaves_traces() {
                true => (1..=task.attempt).contains(&outside),
                false => outside == 0,
            };
            if !is_right {
                let detail = format!(
                    "{}: {kind:?} ran {outside} times in {} attempts",
                    task.id, task.attempt
                );
                self.violated(Rule::Execution, detail);
            }
            let row = savings.by_kind.entry(kind).or_default();
            row.tasks += 1;
            row.attempts += u64::from(task.attempt);
            row.seen_outside += u64::from(outside);
            savings.attempts += u64::from(task.attempt);
        }
        // One that was handed back is an attempt that was begun, and does not count for its task.
        savings.attempts_counted = stats["attempts"].as_u64().unwrap_or(0);
        if savings.attempts > savings.attempts_counted {
            let detail = format!(
                "{} attempts on record, {} counted",
                savings.attempts, savings.attempts_counted
            );
            self.violated(Rule::Execution, detail);
        }
    }

    /// What the clients were told.
    fn answered(&self, killed_at: &[Instant], savings: &mut Savings) {
        let answers = self.way.ledger.answers();
        for (content, kind) in self.day.kinds.iter().enumerate() {
            let Some(told) = answers.get(&content) else {
                self.violated(Rule::Lost, format!("content {content} was not answered"));
                continue;
            };
            // The answer that said so may have been lost: then the repeat was told of a duplicate.
            let is_right = told.new == 1 || (told.new == 0 && told.unsure > 0);
            if !is_right {
                self.violated(Rule::Savings, format!("content {content}: {told:?}"));
            }
            savings.first_answer_lost += u64::from(told.new == 0);
            savings.answered += told.by_key + told.by_content;
            savings.unsure += told.unsure;
            savings.by_kind.entry(*kind).or_default().answers += told.all();
        }
        let unnoted = killed_at.iter().map(|&at| {
            let from = at.checked_sub(NOTED_WITHIN).unwrap_or(at);
            self.way.ledger.suppressed_between(from, at + KILLED_WITHIN) as u64
        });
        savings.unnoted_at_most = unnoted.sum();
    }

    /// By user.
    async fn in_ledgers(
        &self,
        recorded: &BTreeMap<String, Vec<Recorded>>,
    ) -> BTreeMap<String, Saved> {
        let looks = recorded
            .iter()
            .enumerate()
            .map(async |(number, (user, tasks))| {
                let mut caller = self.caller(number);
                let mut saved = Saved::default();
                for task in tasks.iter().filter(|task| task.duplicates > 0) {
                    saved.add(&self.in_ledger(&mut caller, user, task).await);
                }
                (user.clone(), saved)
            });
        stream::iter(looks)
            .buffer_unordered(CALLERS)
            .collect()
            .await
    }

    async fn in_ledger(&self, caller: &mut Caller, user: &str, task: &Recorded) -> Saved {
        let path = format!("/v1/tasks/{}/duplicates", task.id);
        let answer = caller.insist(&read(user, &path)).await.expect("a ledger");
        let mut ledger: Value = serde_json::from_slice(&answer.body).unwrap();
        let entries: Vec<Entry> = serde_json::from_value(ledger["items"].take()).unwrap();
        if entries.len() as u64 != task.duplicates.min(LISTED_MAX) {
            let detail = format!(
                "{}: {} entries of {} duplicates",
                task.id,
                entries.len(),
                task.duplicates
            );
            self.violated(Rule::Savings, detail);
        }
        let run_ms = task.started_at.zip(task.finished_at);
        let run_ms = run_ms.map_or(0, |(from, to)| (to.as_ms() - from.as_ms()).max(0));
        let bytes = task.file.as_ref().map_or(0, |file| file.size);
        let mut saved = Saved::default();
        for entry in entries {
            let ms = (entry.seconds_saved * 1000.0).round() as i64;
            // Of what has not ended nobody knows yet how long it takes.
            let is_right = match task.finished_at {
                Some(finished_at) if entry.at > finished_at => ms == run_ms,
                Some(finished_at) if entry.at == finished_at => ms == run_ms || ms == 0,
                Some(_) | None => ms == 0,
            };
            if !is_right || entry.bytes_saved != bytes {
                let detail = format!(
                    "{}: a duplicate saved {ms} ms of {run_ms} and {} bytes of {bytes}",
                    task.id, entry.bytes_saved
                );
                self.violated(Rule::Savings, detail);
            }
            match entry.matched_by.as_str() {
                "idempotency_key" => saved.by_key += 1,
                _ => saved.by_content += 1,
            }
            saved.ms += ms.unsigned_abs();
            saved.bytes += entry.bytes_saved;
        }
        saved
    }

    /// `/stats` and the ledgers, and both and what the clients were told.
    fn agree(&self, savings: &Savings, stats: &Value) {
        let saved = &savings.saved;
        let number = |name: &str| stats[name].as_u64().unwrap_or(u64::MAX);
        self.expect(
            "duplicates_by_key",
            number("duplicates_by_key"),
            saved.by_key,
        );
        self.expect(
            "duplicates_by_fingerprint",
            number("duplicates_by_fingerprint"),
            saved.by_content,
        );
        self.expect("accepted", number("accepted"), savings.tasks as u64);
        let told = Saved::of(&stats["saved"], "", saved);
        if told != *saved || stats["saved"]["executions"] != saved.executions() {
            let detail = format!("/stats says {}, the ledgers {saved:?}", stats["saved"]);
            self.violated(Rule::Savings, detail);
        }
        let noted = saved.executions();
        let (least, most) = (
            savings.answered.saturating_sub(savings.unnoted_at_most),
            savings.answered + savings.unsure,
        );
        if !(least..=most).contains(&noted) {
            let detail = format!("{noted} duplicates noted, and from {least} to {most} answered");
            self.violated(Rule::Savings, detail);
        }
    }

    /// Every user's own report; how many there are.
    async fn reported(
        &self,
        recorded: &BTreeMap<String, Vec<Recorded>>,
        saved: &BTreeMap<String, Saved>,
    ) -> usize {
        let reports = recorded
            .iter()
            .enumerate()
            .map(async |(number, (user, tasks))| {
                let mut caller = self.caller(number);
                let told = self.report(&mut caller, user, "json").await;
                let totals = &told["report"]["totals"];
                let saved = &saved[user];
                // The report is a task itself.
                let accepted = tasks.len() as u64 + 1;
                let is_right = totals["accepted"] == accepted
                    && totals["duplicates_by_key"] == saved.by_key
                    && totals["duplicates_by_fingerprint"] == saved.by_content
                    && totals["saved_executions"] == saved.executions()
                    && Saved::of(totals, "saved_", saved) == *saved;
                if !is_right {
                    let detail = format!("{user}: {accepted} tasks, {saved:?}; reported: {totals}");
                    self.violated(Rule::Savings, detail);
                }
            });
        let reports: Vec<()> = stream::iter(reports)
            .buffer_unordered(CALLERS)
            .collect()
            .await;
        // As a table, for one of them.
        let Some((user, saved)) = saved.first_key_value() else {
            return 0;
        };
        let table = self.report(&mut self.caller(0), user, "csv").await;
        let row = format!("total,,,saved_executions,{}\r\n", saved.executions());
        if !table["content"]
            .as_str()
            .is_some_and(|content| content.contains(&row))
        {
            self.violated(Rule::Savings, format!("{user}: no {row:?} in {table}"));
        }
        reports.len()
    }

    /// The result of the user's report of the whole day.
    async fn report(&self, caller: &mut Caller, user: &str, format: &str) -> Value {
        let (from, to) = self.day.errands.period(self.day.kinds.len());
        let params = json!({"from": from, "to": to, "format": format}).to_string();
        let intent = Intent {
            number: self.day.submissions.len(),
            content: self.day.kinds.len(),
            kind: Kind::Report,
        };
        let key = format!("the-day-{format}");
        let mut request = Submission::of(&intent, &params).request(user, &key);
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            let answer = caller.insist(&request).await.expect("an answer");
            let mut task: Value = serde_json::from_slice(&answer.body).unwrap();
            let is_over = task["finished_at"].is_string();
            if is_over || Instant::now() > deadline {
                return task["result"].take();
            }
            // To ask by the key again would be one duplicate more.
            request = read(user, &format!("/v1/tasks/{}", task["id"].as_str().unwrap()));
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Saved {
    fn add(&mut self, other: &Saved) {
        self.by_key += other.by_key;
        self.by_content += other.by_content;
        self.ms += other.ms;
        self.bytes += other.bytes;
    }

    fn executions(&self) -> u64 {
        self.by_key + self.by_content
    }

    /// Seconds and bytes as somebody else tells them; the counts are told apart.
    fn of(told: &Value, prefix: &str, counts: &Saved) -> Saved {
        let seconds = told[format!("{prefix}seconds")].as_f64().unwrap_or(-1.0);
        Saved {
            ms: (seconds * 1000.0).round() as u64,
            bytes: told[format!("{prefix}bytes_not_stored")]
                .as_u64()
                .unwrap_or(u64::MAX),
            ..*counts
        }
    }
}

impl fmt::Display for Savings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "    {:10} {:>7} {:>8} {:>8} {:>12}",
            "kind", "tasks", "answers", "attempts", "seen outside"
        )?;
        for (kind, row) in &self.by_kind {
            let kind = format!("{kind:?}");
            writeln!(
                f,
                "    {kind:10} {:7} {:8} {:8} {:12}",
                row.tasks, row.answers, row.attempts, row.seen_outside
            )?;
        }
        let rows = [
            ("submissions planned", self.submissions as u64),
            ("  of these duplicates", self.planned_duplicates as u64),
            ("attempts on record", self.attempts),
            ("  counted by /stats", self.attempts_counted),
            ("duplicates answered", self.answered),
            ("  first answer lost", self.first_answer_lost),
            ("  unsure requests", self.unsure),
            ("duplicates noted", self.saved.executions()),
            ("  by key", self.saved.by_key),
            ("  by content", self.saved.by_content),
            ("  of ended tasks", self.cache_hits),
            ("  lost by kills, at most", self.unnoted_at_most),
            ("milliseconds saved", self.saved.ms),
            ("bytes not stored", self.saved.bytes),
            ("reports that agree", self.reports as u64),
        ];
        for (name, number) in rows {
            writeln!(f, "{name:24} {number}")?;
        }
        Ok(())
    }
}
