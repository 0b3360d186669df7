//! Which firings are submitted, of those that are due.

use std::time::Duration;

use crate::domain::cadence::Cadence;
use crate::domain::schedule::{Missed, Schedule};
use crate::domain::timestamp::Timestamp;

/// A firing that is later than this was missed: nobody was there for it.
const ON_TIME: Duration = Duration::from_secs(10);

/// Oldest first, from `first`, which is a firing, until `now`.
pub fn to_submit(
    cadence: &Cadence,
    first: Timestamp,
    now: Timestamp,
    missed: Missed,
) -> Vec<Timestamp> {
    let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let on_time_since = Timestamp::from_ms(now.as_ms().saturating_sub(ms(ON_TIME)));
    if first >= on_time_since {
        return from(cadence, Some(first), now).collect();
    }
    match missed {
        Missed::Skip => {
            let next = cadence.next_after(before(on_time_since));
            from(cadence, next, now).collect()
        }
        Missed::RunOnce => cadence
            .last_between(before(first), now)
            .into_iter()
            .collect(),
        Missed::RunAll => {
            let most = Schedule::CAUGHT_UP_MAX;
            let oldest: Vec<_> = from(cadence, Some(first), now).take(most + 1).collect();
            if oldest.len() <= most {
                return oldest;
            }
            newest(cadence, first, now, most)
        }
    }
}

fn from(
    cadence: &Cadence,
    first: Option<Timestamp>,
    now: Timestamp,
) -> impl Iterator<Item = Timestamp> {
    let all = std::iter::successors(first, |&last| cadence.next_after(last));
    all.take_while(move |&at| at <= now)
}

fn newest(cadence: &Cadence, first: Timestamp, now: Timestamp, count: usize) -> Vec<Timestamp> {
    let last = |until| cadence.last_between(before(first), until);
    let backwards = std::iter::successors(last(now), |&at| last(before(at)));
    let mut newest: Vec<_> = backwards.take(count).collect();
    newest.reverse();
    newest
}

fn before(at: Timestamp) -> Timestamp {
    Timestamp::from_ms(at.as_ms() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn submitted(cron: &str, first: &str, now: &str, missed: Missed) -> Vec<String> {
        let cadence = Cadence::parse(cron, "UTC").unwrap();
        let all = to_submit(&cadence, at(first), at(now), missed);
        all.iter()
            .map(|at| at.to_string()[11..19].to_owned())
            .collect()
    }

    #[test]
    fn what_is_on_time_is_submitted_whatever_the_policy() {
        for missed in [Missed::Skip, Missed::RunOnce, Missed::RunAll] {
            let due = |first, now| submitted("*/5 * * * * *", first, now, missed);
            let all = due("2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z");
            assert_eq!(all, ["00:00:00", "00:00:05", "00:00:10"], "{missed:?}");
            assert!(due("2026-01-01T00:00:05Z", "2026-01-01T00:00:04Z").is_empty());
        }
    }

    #[test]
    fn what_was_missed_goes_by_the_policy() {
        let due = |missed| {
            let (first, now) = ("2026-01-01T08:00:00Z", "2026-01-01T11:30:00Z");
            submitted("0 * * * *", first, now, missed)
        };
        assert_eq!(due(Missed::Skip), [""; 0]);
        assert_eq!(due(Missed::RunOnce), ["11:00:00"]);
        let all = ["08:00:00", "09:00:00", "10:00:00", "11:00:00"];
        assert_eq!(due(Missed::RunAll), all);
        let back_in_time = |missed| {
            let (first, now) = ("2026-01-01T08:00:00Z", "2026-01-01T10:00:01Z");
            submitted("0 * * * *", first, now, missed)
        };
        assert_eq!(back_in_time(Missed::Skip), ["10:00:00"]);
        assert_eq!(back_in_time(Missed::RunOnce), ["10:00:00"]);
    }

    #[test]
    fn of_too_many_the_newest_are_made_up_for() {
        let (first, now) = ("2020-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z");
        let all = submitted("* * * * * *", first, now, Missed::RunAll);
        assert_eq!(all.len(), Schedule::CAUGHT_UP_MAX);
        assert_eq!(all.first().unwrap(), "23:43:21");
        assert_eq!(all.last().unwrap(), "00:00:00");
    }
}
