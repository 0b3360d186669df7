//! What all clients together remember: every acknowledgement with its id, state and result, and every
//! look at a task. What contradicts an earlier memory is a violation at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::intent::Intent;
use super::violation::{Rule, Violation};

#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Pages>>);

#[derive(Default)]
pub struct Pages {
    /// By number of the intent.
    intents: HashMap<usize, Noted>,
    tasks: HashMap<Arc<str>, Known>,
    /// In the order of their first acknowledgement.
    ids: Vec<Arc<str>>,
    pub counts: Counts,
    opened_at: Option<Instant>,
    last_acknowledged: Option<Instant>,
    /// By content.
    answers: HashMap<usize, Answers>,
    /// When duplicates were answered.
    suppressed_at: Vec<Instant>,
    violations: Vec<Violation>,
}

/// How those who submitted one content were answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    pub new: u64,
    pub by_key: u64,
    pub by_content: u64,
    /// Requests of which nobody knows what became of them.
    pub unsure: u64,
}

impl Answers {
    pub fn all(&self) -> u64 {
        self.new + self.by_key + self.by_content
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub acknowledged: u64,
    /// Given up without knowing what became of it.
    pub unknown: u64,
    /// Refused for good.
    pub failed: u64,
    /// Requests that had to be repeated.
    pub repeats: u64,
    pub looks: u64,
    /// The longest time in which nobody got an acknowledgement.
    pub unavailable: Duration,
    /// When that was over.
    pub unavailable_until: Duration,
}

struct Noted {
    intent: Intent,
    id: Option<Arc<str>>,
}

/// A task as it was seen.
struct Known {
    content: usize,
    attempt: u32,
    attempt_seen_at: Instant,
    ended: Option<Ended>,
}

struct Ended {
    state: String,
    result: Option<String>,
    seen_at: Instant,
}

/// The parts of a task that matter here.
#[derive(Deserialize)]
pub struct Seen<'a> {
    pub id: &'a str,
    pub state: &'a str,
    pub attempt: u32,
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    /// In answers to submissions: why it was a duplicate.
    #[serde(default)]
    pub matched_by: Option<&'a str>,
}

impl Seen<'_> {
    pub fn is_ended(&self) -> bool {
        matches!(self.state, "succeeded" | "failed" | "cancelled")
    }
}

/// An acknowledged task, for those who check.
#[derive(Clone)]
pub struct Acknowledged {
    pub id: Arc<str>,
    pub content: usize,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap()
    }

    /// Clients begin: from now on they wait for acknowledgements.
    pub fn open(&self) {
        let mut pages = self.pages();
        pages.opened_at = Some(Instant::now());
        pages.last_acknowledged = pages.opened_at;
    }

    pub fn sent(&self, intent: Intent) {
        let noted = Noted { intent, id: None };
        self.pages().intents.entry(intent.number).or_insert(noted);
    }

    pub fn repeated(&self) {
        self.pages().counts.repeats += 1;
    }

    /// A request was not answered, or not for sure.
    pub fn unsure(&self, intent: Intent) {
        let mut pages = self.pages();
        pages.answers.entry(intent.content).or_default().unsure += 1;
    }

    /// `began`: when the request was sent.
    pub fn acknowledged(&self, intent: Intent, began: Instant, seen: &Seen) {
        let mut pages = self.pages();
        pages.counts.acknowledged += 1;
        let now = Instant::now();
        if let Some(last) = pages.last_acknowledged.replace(now) {
            let gap = now.duration_since(last);
            if gap > pages.counts.unavailable {
                pages.counts.unavailable = gap;
                pages.counts.unavailable_until = pages.opened_at.map_or(gap, |at| at.elapsed());
            }
        }
        pages.named(intent, began, seen);
    }

    /// As an acknowledgement, after the load is over.
    pub fn replayed(&self, intent: Intent, began: Instant, seen: &Seen) {
        self.pages().named(intent, began, seen);
    }

    /// A look at a task that was acknowledged before.
    pub fn looked(&self, content: usize, began: Instant, seen: &Seen) {
        let mut pages = self.pages();
        pages.counts.looks += 1;
        pages.observe(content, began, seen);
    }

    pub fn given_up(&self) {
        self.pages().counts.unknown += 1;
    }

    pub fn refused(&self, intent: Intent, status: u16, body: &[u8]) {
        let mut pages = self.pages();
        pages.counts.failed += 1;
        let body = String::from_utf8_lossy(body);
        pages.violated(Rule::Refused, format!("{}: {status} {body}", intent.key()));
    }

    pub fn violated(&self, rule: Rule, detail: String) {
        self.pages().violated(rule, detail);
    }

    /// One acknowledged task, chosen by a number.
    pub fn any_task(&self, choice: usize) -> Option<Acknowledged> {
        let pages = self.pages();
        let id = pages.ids.get(choice.checked_rem(pages.ids.len())?)?;
        pages.task(id)
    }

    pub fn tasks(&self) -> Vec<Acknowledged> {
        let pages = self.pages();
        let tasks = pages.ids.iter();
        tasks.filter_map(|id| pages.task(id)).collect()
    }

    /// Every intent that was sent, with the id that its key was answered with.
    pub fn intents(&self) -> Vec<(Intent, Option<Arc<str>>)> {
        let pages = self.pages();
        let mut intents: Vec<_> = pages
            .intents
            .values()
            .map(|noted| (noted.intent, noted.id.clone()))
            .collect();
        intents.sort_by_key(|(intent, _)| intent.number);
        intents
    }

    pub fn counts(&self) -> Counts {
        self.pages().counts
    }

    /// By content.
    pub fn answers(&self) -> HashMap<usize, Answers> {
        self.pages().answers.clone()
    }

    /// Duplicates that were answered in this time.
    pub fn suppressed_between(&self, from: Instant, to: Instant) -> usize {
        let pages = self.pages();
        let at = pages.suppressed_at.iter();
        at.filter(|at| (from..to).contains(*at)).count()
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.pages().violations.clone()
    }
}

impl Pages {
    /// A key was answered with a task.
    fn named(&mut self, intent: Intent, began: Instant, seen: &Seen) {
        let id = self.observe(intent.content, began, seen);
        let answers = self.answers.entry(intent.content).or_default();
        match seen.matched_by {
            None => answers.new += 1,
            Some("idempotency_key") => answers.by_key += 1,
            Some(_) => answers.by_content += 1,
        }
        if seen.matched_by.is_some() {
            self.suppressed_at.push(Instant::now());
        }
        let Some(noted) = self.intents.get_mut(&intent.number) else {
            return;
        };
        match &noted.id {
            None => noted.id = Some(id),
            Some(known) if *known == id => {}
            Some(known) => {
                let detail = format!("{} named {known} and then {id}", intent.key());
                self.violated(Rule::TwoIdsForAKey, detail);
            }
        }
    }

    fn observe(&mut self, content: usize, began: Instant, seen: &Seen) -> Arc<str> {
        let now = Instant::now();
        let ended = seen.is_ended().then(|| Ended {
            state: seen.state.to_owned(),
            result: seen.result.map(|result| result.get().to_owned()),
            seen_at: now,
        });
        let Some((id, _)) = self.tasks.get_key_value(seen.id) else {
            let id: Arc<str> = seen.id.into();
            let known = Known {
                content,
                attempt: seen.attempt,
                attempt_seen_at: now,
                ended,
            };
            self.tasks.insert(id.clone(), known);
            self.ids.push(id.clone());
            return id;
        };
        let id = id.clone();
        let Some(known) = self.tasks.get_mut(&id) else {
            return id;
        };
        let fault = known.next(began, seen, ended);
        if let Some((rule, detail)) = fault {
            self.violated(rule, format!("{id}: {detail}"));
        }
        id
    }

    fn violated(&mut self, rule: Rule, detail: String) {
        self.violations.push(Violation { rule, detail });
    }

    fn task(&self, id: &Arc<str>) -> Option<Acknowledged> {
        let known = self.tasks.get(id)?;
        Some(Acknowledged {
            id: id.clone(),
            content: known.content,
        })
    }
}

impl Known {
    /// Takes the next look in. Looks of several clients overlap: only one that began after another had
    /// ended is later than that.
    fn next(
        &mut self,
        began: Instant,
        seen: &Seen,
        ended: Option<Ended>,
    ) -> Option<(Rule, String)> {
        let shown = format!("{} after attempt {}", seen.state, seen.attempt);
        match (&self.ended, ended) {
            (Some(end), Some(now)) if end.state != now.state || end.result != now.result => {
                let was = format!("{} with {:?}", end.state, end.result);
                let is = format!("{} with {:?}", now.state, now.result);
                return Some((Rule::ChangedAfterItsEnd, format!("{was}, then {is}")));
            }
            (Some(end), None) if began >= end.seen_at => {
                let detail = format!("{}, then {shown}", end.state);
                return Some((Rule::ChangedAfterItsEnd, detail));
            }
            (None, Some(now)) => self.ended = Some(now),
            (Some(_), _) | (None, None) => {}
        }
        // No task here is submitted for later. An attempt that is handed back is not counted.
        let fell = seen.attempt + 1 < self.attempt && began >= self.attempt_seen_at;
        if seen.attempt > self.attempt {
            self.attempt = seen.attempt;
            self.attempt_seen_at = Instant::now();
        }
        let illegal = fell || seen.state == "scheduled";
        illegal.then(|| {
            let detail = format!("{shown}, but attempt {} was seen before", self.attempt);
            (Rule::IllegalStep, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(
        id: &'a str,
        state: &'a str,
        attempt: u32,
        result: Option<&'a RawValue>,
    ) -> Seen<'a> {
        Seen {
            id,
            state,
            attempt,
            result,
            matched_by: None,
        }
    }

    fn json(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// What one key, answered first so and then so, gives rise to.
    fn noticed(first: &Seen, then: &Seen) -> Vec<Rule> {
        let ledger = Ledger::default();
        let intent = Intent::numbered(7, true);
        ledger.sent(intent);
        for seen in [first, then] {
            ledger.acknowledged(intent, Instant::now(), seen);
        }
        ledger.violations().iter().map(|v| v.rule).collect()
    }

    #[test]
    fn contradictions_are_noticed() {
        let (one, two) = (json("1"), json("2"));
        let running = seen("a", "running", 1, None);
        let ended = seen("a", "succeeded", 1, Some(&one));
        assert!(noticed(&running, &ended).is_empty());
        assert!(noticed(&ended, &ended).is_empty());
        let other = seen("b", "running", 1, None);
        assert_eq!(noticed(&running, &other), [Rule::TwoIdsForAKey]);
        for later in [
            seen("a", "succeeded", 1, Some(&two)),
            seen("a", "failed", 1, Some(&one)),
            seen("a", "succeeded", 1, None),
            seen("a", "running", 2, None),
            seen("a", "queued", 1, None),
        ] {
            assert_eq!(noticed(&ended, &later), [Rule::ChangedAfterItsEnd]);
        }
        let fourth = seen("a", "running", 4, None);
        assert_eq!(
            noticed(&fourth, &seen("a", "running", 2, None)),
            [Rule::IllegalStep]
        );
        // One attempt may have been handed back.
        assert!(noticed(&fourth, &seen("a", "queued", 3, None)).is_empty());
    }

    #[test]
    fn looks_that_overlap_contradict_nothing() {
        let ledger = Ledger::default();
        let (before, one) = (Instant::now(), json("1"));
        ledger.looked(7, before, &seen("a", "succeeded", 1, Some(&one)));
        ledger.looked(7, before, &seen("a", "running", 1, None));
        assert!(ledger.violations().is_empty());
    }
}
