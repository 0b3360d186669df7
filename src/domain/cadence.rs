//! When a schedule fires: a cron pattern in a time zone.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use jiff::Zoned;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::timestamp::Timestamp;

/// Five fields (minute, hour, day of month, month, day of week), or six with seconds first, or seven with a year last;
/// also `@daily` and its like.
///
/// A pattern that names some hours of the day fires by the clock on the wall: once in a local time that daylight
/// saving doubles, and at the first moment after the gap for all the local times that it skips. A pattern of every hour
/// goes by the time that passes, and never fires more or less often.
#[derive(Clone)]
pub struct Cadence {
    cron: Cron,
    zone: TimeZone,
}

/// Why there is no such cadence; the text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CadenceError {
    #[error("{0}")]
    Cron(String),
    #[error("must be the name of an IANA time zone, such as Europe/Berlin")]
    Zone,
}

impl Cadence {
    /// Characters of a pattern, at most.
    pub const CRON_LENGTH_MAX: usize = 256;

    pub fn parse(cron: &str, zone: &str) -> Result<Self, CadenceError> {
        if cron.len() > Self::CRON_LENGTH_MAX {
            let detail = format!("has more than {} characters", Self::CRON_LENGTH_MAX);
            return Err(CadenceError::Cron(detail));
        }
        let wrong = |error: croner::errors::CronError| CadenceError::Cron(error.to_string());
        let cron = Cron::from_str(cron).map_err(wrong)?;
        let zone = zone_named(zone).ok_or(CadenceError::Zone)?;
        Ok(Cadence { cron, zone })
    }

    /// The first firing after `at`; none when there will never be one.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let now = jiff::Timestamp::from_millisecond(at.as_ms()).ok()?;
        let now = now.to_zoned(self.zone.clone());
        let next = match self.is_of_every_hour() {
            true => self
                .cron
                .find_next_occurrence(&now, false)
                .ok()?
                .timestamp(),
            false => self.next_by_the_wall(&now)?,
        };
        let next = Timestamp::from_ms(next.as_millisecond());
        (next > at && next <= Timestamp::MAX).then_some(next)
    }

    /// The last firing after `from` and not after `until`.
    ///
    /// Doubles the distance from `until` until there is one, and then halves it: a handful of looks, however long it
    /// has been.
    pub fn last_between(&self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let hit = |ms: i64| {
            let next = self.next_after(Timestamp::from_ms(ms));
            next.filter(|&next| next <= until)
        };
        let (from, mut none) = (from.as_ms(), until.as_ms());
        let mut distance = 1000;
        let (mut some, mut found) = loop {
            let back = none.saturating_sub(distance).max(from);
            match hit(back) {
                Some(found) => break (back, found),
                None if back == from => return None,
                None => (none, distance) = (back, distance.saturating_mul(2)),
            }
        };
        while none - some > 1 {
            let middle = some + (none - some) / 2;
            match hit(middle) {
                Some(later) => (some, found) = (middle, later),
                None => none = middle,
            }
        }
        Some(found)
    }

    fn is_of_every_hour(&self) -> bool {
        let hours = self.cron.pattern.hours.values();
        hours.len() == 24
    }

    fn next_by_the_wall(&self, now: &Zoned) -> Option<jiff::Timestamp> {
        let mut wall: DateTime = now.datetime();
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            let instant = self.instant(wall)?;
            // Within a doubled hour, the times ahead on the wall were there before.
            if instant > now.timestamp() {
                return Some(instant);
            }
        }
    }

    /// When the wall shows this for the first time, or does not show it any more.
    fn instant(&self, wall: DateTime) -> Option<jiff::Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().ok(),
            AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
            AmbiguousOffset::Gap { after, .. } => {
                let before_the_gap = after.to_timestamp(wall).ok()?;
                let mut changes = self.zone.following(before_the_gap);
                changes.next().map(|change| change.timestamp())
            }
        }
    }
}

impl fmt::Debug for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or_default();
        write!(f, "{} in {zone}", self.cron.as_str())
    }
}

/// An IANA time zone.
pub fn zone_named(name: &str) -> Option<TimeZone> {
    (name != "Etc/Unknown").then(|| TimeZone::get(name).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn firings(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cadence = Cadence::parse(cron, zone).unwrap();
        let first = cadence.next_after(at(from));
        let all = std::iter::successors(first, |&last| cadence.next_after(last));
        let shown = |at: Timestamp| at.to_string().replace(":00.000Z", "Z");
        all.take(count).map(shown).collect()
    }

    #[test]
    fn a_local_time_that_is_skipped_fires_once_after_the_gap() {
        let berlin = |cron, count| firings(cron, "Europe/Berlin", "2026-03-28T12:00:00Z", count);
        let expected = ["2026-03-29T01:00Z", "2026-03-30T00:30Z"];
        assert_eq!(berlin("30 2 * * *", 2), expected);
        let expected = [
            "2026-03-29T00:30Z",
            "2026-03-29T01:00Z",
            "2026-03-29T01:30Z",
        ];
        assert_eq!(berlin("*/30 1-3 * * *", 4)[1..], expected);
        // A gap of half an hour.
        let lord_howe = firings(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            1,
        );
        assert_eq!(lord_howe, ["2026-10-03T15:30Z"]);
    }

    #[test]
    fn a_local_time_that_is_doubled_fires_once() {
        let new_york = |cron, from, count| firings(cron, "America/New_York", from, count);
        let expected = ["2026-11-01T05:30Z", "2026-11-02T06:30Z"];
        assert_eq!(new_york("30 1 * * *", "2026-10-31T12:00:00Z", 2), expected);
        let expected = [
            "2026-11-01T05:00Z",
            "2026-11-01T05:30Z",
            "2026-11-02T06:00Z",
        ];
        assert_eq!(
            new_york("0,30 1 * * *", "2026-10-31T12:00:00Z", 3),
            expected
        );
        // Asked within the second of the two hours.
        let next = new_york("30 1 * * *", "2026-11-01T06:10:00Z", 1);
        assert_eq!(next, ["2026-11-02T06:30Z"]);
    }

    #[test]
    fn a_pattern_of_every_hour_goes_by_the_time_that_passes() {
        let hourly = ["04:00", "05:00", "06:00", "07:00"].map(|t| format!("2026-11-01T{t}Z"));
        let new_york = |cron, from| firings(cron, "America/New_York", from, 4);
        assert_eq!(new_york("0 * * * *", "2026-11-01T03:30:00Z"), hourly);
        let over_the_gap = ["06:30", "06:45", "07:00", "07:15"].map(|t| format!("2026-03-08T{t}Z"));
        assert_eq!(
            new_york("*/15 * * * *", "2026-03-08T06:15:00Z"),
            over_the_gap
        );
    }

    #[test]
    fn what_never_fires_is_said_to_soon() {
        let began = std::time::Instant::now();
        for never in [
            "0 0 30 2 *",
            "0 0 31 2,4,6 *",
            "0 0 0 1 1 * 2020",
            "* * * 30 2 *",
        ] {
            let cadence = Cadence::parse(never, "UTC").unwrap();
            assert_eq!(
                cadence.next_after(at("2026-01-01T00:00:00Z")),
                None,
                "{never}"
            );
        }
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
        let leap = firings("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1);
        assert_eq!(leap, ["2028-02-29T00:00Z"]);
    }

    #[test]
    fn what_is_no_cadence_is_refused() {
        let long = "1,".repeat(200);
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * * * * * * *",
            "x",
            "0 25 * * *",
            &long,
        ] {
            let refused = Cadence::parse(bad, "UTC");
            assert!(
                matches!(refused, Err(CadenceError::Cron(_))),
                "{bad}: {refused:?}"
            );
        }
        for bad in ["", "Europe/Nowhere", "+02:00", "Etc/Unknown", "../etc"] {
            let refused = Cadence::parse("* * * * *", bad);
            assert_eq!(refused.err(), Some(CadenceError::Zone), "{bad}");
        }
    }

    #[test]
    fn the_last_firing_of_a_span_is_found_however_long_it_is() {
        let last = |cron: &str, from: &str, until: &str| {
            let cadence = Cadence::parse(cron, "Europe/Berlin").unwrap();
            cadence
                .last_between(at(from), at(until))
                .map(|at| at.to_string())
        };
        let (old, now) = ("2020-01-01T00:00:00Z", "2026-06-15T12:34:56.789Z");
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(
            last("* * * * * *", old, now),
            found("2026-06-15T12:34:56.000Z")
        );
        assert_eq!(
            last("0 3 * * *", old, now),
            found("2026-06-15T01:00:00.000Z")
        );
        assert_eq!(
            last("0 0 1 1 *", old, now),
            found("2025-12-31T23:00:00.000Z")
        );
        assert_eq!(last("0 0 29 2 *", "2024-03-01T00:00:00Z", now), None);
        let exact = "2026-06-15T01:00:00Z";
        assert_eq!(
            last("0 3 * * *", old, exact),
            found("2026-06-15T01:00:00.000Z")
        );
        assert_eq!(last("0 3 * * *", exact, now), None);
    }
}
