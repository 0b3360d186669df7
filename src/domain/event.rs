//! What happens to a task, as those who follow it are told.
//!
//! A task's record counts its changes and keeps the newest of them, so that whoever has seen one event is
//! given those that follow, over restarts and on every replica. The first event is that there is the task.

use std::borrow::Cow;

use super::task::{Progress, State, Task, TaskError};
use super::timestamp::Timestamp;

/// How often a task has changed visibly, and the newest of its changes, each in one line as stores write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    count: u64,
    /// `\n`, then with tabs between: the state, with `p` before it when only the progress has changed; the
    /// attempt; when that was, when the attempt began and when the next one is due, each in ms since the task's
    /// creation; progress and error as JSON. What is not known is left out. The first line may be cut short.
    trail: Box<[u8]>,
}

/// About as many bytes of changes are kept with a task; older ones are dropped.
pub const TRAIL_BYTES_MAX: usize = 2048;

/// What stores write before the state where only the progress has changed.
pub const PROGRESS_MARK: &str = "p";

impl Default for Changes {
    fn default() -> Self {
        Changes::new(None, &[])
    }
}

impl Changes {
    /// As a record has them. One without a count has seen no change after its creation.
    pub fn new(count: Option<u64>, trail: &[u8]) -> Self {
        Changes {
            count: count.unwrap_or(1).max(1),
            trail: trail.into(),
        }
    }

    /// The number of the newest event.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The newest changes without a gap, oldest first.
    fn kept(&self, created_at: Timestamp) -> Vec<Change> {
        let lines = self.trail.split(|&byte| byte == b'\n').skip(1);
        let mut kept = Vec::new();
        for line in lines {
            match Change::read(line, created_at) {
                Some(change) => kept.push(change),
                None => kept.clear(),
            }
        }
        // The first event is no change.
        let surplus = (kept.len() as u64 + 1).saturating_sub(self.count);
        kept.drain(..usize::try_from(surplus).unwrap_or(0).min(kept.len()));
        kept
    }
}

/// What a change has left behind.
#[derive(Clone, Debug)]
struct Change {
    of_progress: bool,
    state: State,
    attempt: u32,
    at: Timestamp,
    started_at: Option<Timestamp>,
    next_attempt_at: Option<Timestamp>,
    progress: Option<Progress>,
    error: Option<TaskError>,
}

impl Change {
    fn read(line: &[u8], created_at: Timestamp) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.split('\t');
        let state = words.next()?;
        let (of_progress, state) = match State::parse(state) {
            Some(state) => (false, state),
            None => (true, State::parse(state.strip_prefix(PROGRESS_MARK)?)?),
        };
        let attempt = words.next()?.parse().ok()?;
        let time = |word: &str| match word {
            "" => Some(None),
            ms => ms
                .parse::<i64>()
                .ok()
                .map(|ms| Some(Timestamp::from_ms(created_at.as_ms().saturating_add(ms)))),
        };
        Some(Change {
            of_progress,
            state,
            attempt,
            at: time(words.next()?)??,
            started_at: time(words.next()?)?,
            next_attempt_at: time(words.next()?)?,
            progress: optional_json(words.next()?)?,
            error: optional_json(words.next()?)?,
        })
    }

    fn kind(&self) -> EventKind {
        match self.state {
            _ if self.of_progress => EventKind::Progress,
            State::Retrying => EventKind::Attempt,
            State::Running if self.attempt > 1 => EventKind::Attempt,
            _ => EventKind::State,
        }
    }

    /// The task as this change left it. What no change is noted of is as it stands today.
    fn applied_to(&self, task: &Task) -> Task {
        Task {
            state: self.state,
            attempt: self.attempt,
            started_at: self.started_at,
            finished_at: self.state.is_ended().then_some(self.at),
            next_attempt_at: self.next_attempt_at,
            dedup_expires_at: None,
            outcome: None,
            progress: self.progress.clone(),
            error: self.error.clone(),
            superseded_by: task.superseded_by.clone().filter(|_| self.state.is_ended()),
            ..task.clone()
        }
    }
}

fn optional_json<T: serde::de::DeserializeOwned>(text: &str) -> Option<Option<T>> {
    match text {
        "" => Some(None),
        json => serde_json::from_str(json).ok().map(Some),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The task is in another state.
    State,
    /// Its attempt has come further.
    Progress,
    /// An attempt has failed and another follows, or one after the first has begun.
    Attempt,
    /// What came between is not known any more: this is how the task stands.
    Reset,
}

impl EventKind {
    pub fn name(self) -> &'static str {
        match self {
            EventKind::State => "state",
            EventKind::Progress => "progress",
            EventKind::Attempt => "attempt",
            EventKind::Reset => "reset",
        }
    }
}

/// One thing that happened to a task, with the task as it was then.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Grows by one within a task, from 1.
    pub number: u64,
    pub kind: EventKind,
    pub task: Cow<'a, Task>,
}

impl Task {
    /// The newest event.
    pub fn newest_event(&self) -> Event<'_> {
        let kind = match self.changes.kept(self.created_at).last() {
            Some(change) => change.kind(),
            None => EventKind::State,
        };
        self.event_of_now(kind)
    }

    /// How the task stands, for those who cannot be told what came before.
    pub fn reset_event(&self) -> Event<'_> {
        self.event_of_now(EventKind::Reset)
    }

    /// The events after this number, oldest first; a reset where they are not all known any more.
    pub fn events_after(&self, seen: u64) -> Vec<Event<'_>> {
        let count = self.changes.count;
        if seen == count {
            return Vec::new();
        }
        let kept = self.changes.kept(self.created_at);
        let first_kept = count - kept.len() as u64 + 1;
        if seen > count || (seen + 1 < first_kept && !(seen == 0 && first_kept == 2)) {
            return vec![self.reset_event()];
        }
        let mut events = Vec::new();
        if seen == 0 {
            events.push(self.first_event());
        }
        for (number, change) in (first_kept..).zip(&kept) {
            if number == count {
                events.push(self.event_of_now(change.kind()));
            } else if number > seen {
                events.push(Event {
                    number,
                    kind: change.kind(),
                    task: Cow::Owned(change.applied_to(self)),
                });
            }
        }
        events
    }

    fn event_of_now(&self, kind: EventKind) -> Event<'_> {
        Event {
            number: self.changes.count,
            kind,
            task: Cow::Borrowed(self),
        }
    }

    fn first_event(&self) -> Event<'_> {
        if self.changes.count == 1 {
            return self.event_of_now(EventKind::State);
        }
        let waits = self.scheduled_at.is_some_and(|at| at > self.created_at);
        let change = Change {
            of_progress: false,
            state: if waits {
                State::Scheduled
            } else {
                State::Queued
            },
            attempt: 0,
            at: self.created_at,
            started_at: None,
            next_attempt_at: None,
            progress: None,
            error: None,
        };
        Event {
            number: 1,
            kind: EventKind::State,
            task: Cow::Owned(change.applied_to(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(trail: &str, count: u64) -> usize {
        let changes = Changes::new(Some(count), trail.as_bytes());
        changes.kept(Timestamp::from_ms(1000)).len()
    }

    #[test]
    fn lines_are_read_as_stores_write_them() {
        let trail = "\nrunning\t1\t5\t5\t\t\t\
                     \nprunning\t1\t9\t5\t\t{\"done\":1.0,\"total\":null,\"message\":\"a\\tb\\n\"}\t\
                     \nretrying\t1\t10\t5\t70\t\t{\"code\":\"c\",\"message\":\"m\",\"attempt\":1,\"permanent\":false}";
        let changes = Changes::new(Some(4), trail.as_bytes());
        let kept = changes.kept(Timestamp::from_ms(1000));
        let [began, further, failed] = kept.as_slice() else {
            panic!("{kept:?}")
        };
        assert_eq!(began.started_at, Some(Timestamp::from_ms(1005)));
        assert_eq!(began.kind(), EventKind::State);
        assert_eq!(further.kind(), EventKind::Progress);
        assert_eq!(further.progress.as_ref().unwrap().done, 1.0);
        assert_eq!(failed.kind(), EventKind::Attempt);
        assert_eq!(failed.next_attempt_at, Some(Timestamp::from_ms(1070)));
        assert_eq!(failed.error.as_ref().unwrap().code, "c");
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_not_believed() {
        let line = "\nqueued\t0\t5\t\t\t\t";
        assert_eq!(numbers("", 1), 0);
        assert_eq!(numbers(&line.repeat(3), 9), 3);
        // The first line is cut, be it through a character of several bytes.
        assert_eq!(numbers(&format!("ueued\t0\t5\t\t\t\t{line}"), 9), 1);
        let mut cut = vec![0x80];
        cut.extend(line.as_bytes());
        assert_eq!(
            Changes::new(Some(9), &cut)
                .kept(Timestamp::from_ms(0))
                .len(),
            1
        );
        // Nothing before a damaged line follows without a gap.
        assert_eq!(numbers(&format!("{line}\nnonsense{line}"), 9), 1);
        assert_eq!(numbers(&format!("{line}\nqueued\tx\t5\t\t\t\t"), 9), 0);
        // There are no more changes than the record counts.
        assert_eq!(numbers(&line.repeat(3), 2), 1);
    }
}
