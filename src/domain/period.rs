//! Periods that a word names, such as the day before.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::timestamp::Timestamp;

/// Counted back from some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    LastHour,
    Last24Hours,
    Last7Days,
    /// From midnight to midnight, as the clocks on the wall go there.
    Yesterday,
}

impl Period {
    pub const NAMES: [&str; 4] = ["last_hour", "last_24h", "last_7d", "yesterday"];

    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "last_hour" => Period::LastHour,
            "last_24h" => Period::Last24Hours,
            "last_7d" => Period::Last7Days,
            "yesterday" => Period::Yesterday,
            _ => return None,
        })
    }

    /// Begin and end. None at the ends of the calendar.
    pub fn before(self, at: Timestamp, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        let hours = match self {
            Period::LastHour => 1,
            Period::Last24Hours => 24,
            Period::Last7Days => 7 * 24,
            Period::Yesterday => return day_before(at, zone),
        };
        let span = Duration::from_secs(hours * 3600).as_millis();
        let from = at.as_ms().checked_sub(i64::try_from(span).ok()?)?;
        Some((Timestamp::from_ms(from), at))
    }
}

fn day_before(at: Timestamp, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let at = jiff::Timestamp::from_millisecond(at.as_ms()).ok()?;
    let today = at.to_zoned(zone.clone());
    let yesterday = today.yesterday().ok()?;
    let begin = |day: jiff::Zoned| {
        let begin = day.start_of_day().ok()?.timestamp();
        Some(Timestamp::from_ms(begin.as_millisecond()))
    };
    Some((begin(yesterday)?, begin(today)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn before(name: &str, zone: &str, now: &str) -> (Timestamp, Timestamp) {
        let zone = TimeZone::get(zone).unwrap();
        Period::parse(name).unwrap().before(at(now), &zone).unwrap()
    }

    #[test]
    fn spans_end_at_the_time_that_they_are_counted_back_from() {
        let now = "2026-03-29T10:17:05Z";
        for (name, from) in [
            ("last_hour", "2026-03-29T09:17:05Z"),
            ("last_24h", "2026-03-28T10:17:05Z"),
            ("last_7d", "2026-03-22T10:17:05Z"),
        ] {
            assert_eq!(before(name, "Europe/Berlin", now), (at(from), at(now)));
        }
        assert!(
            Period::NAMES
                .iter()
                .all(|name| Period::parse(name).is_some())
        );
        assert_eq!(Period::parse("tomorrow"), None);
    }

    #[test]
    fn yesterday_is_a_day_of_its_place_however_long_it_was() {
        for (zone, now, from, to) in [
            (
                "UTC",
                "2026-03-01T00:00:00Z",
                "2026-02-28T00:00:00Z",
                "2026-03-01T00:00:00Z",
            ),
            (
                "UTC",
                "2026-02-28T23:59:59Z",
                "2026-02-27T00:00:00Z",
                "2026-02-28T00:00:00Z",
            ),
            // It is the 2nd there already.
            (
                "Asia/Tokyo",
                "2026-06-01T16:00:00Z",
                "2026-05-31T15:00:00Z",
                "2026-06-01T15:00:00Z",
            ),
            // Days of 23 and of 25 hours.
            (
                "Europe/Berlin",
                "2026-03-30T08:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-26T08:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
        ] {
            assert_eq!(
                before("yesterday", zone, now),
                (at(from), at(to)),
                "{zone} {now}"
            );
        }
    }
}
