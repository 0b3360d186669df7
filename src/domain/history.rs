//! What happened in the course of time, bucket by bucket.

use std::time::Duration;

use super::stats::Tally;
use super::timestamp::Timestamp;

/// Buckets of one length, which stores keep for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub length_ms: i64,
    pub kept_ms: i64,
}

/// The shortest of those that reach back to the beginning of a period are used for it.
pub const FINE: Buckets = Buckets {
    length_ms: 300_000,
    kept_ms: 7_200_000,
};
/// A week, and what the oldest bucket reaches back further.
pub const COARSE: Buckets = Buckets {
    length_ms: 3_600_000,
    kept_ms: 7 * 86_400_000 + 2 * 3_600_000,
};

/// A period in whole buckets, from the first millisecond of the first to the end of the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Timestamp,
    pub to: Timestamp,
    pub bucket: Duration,
    /// Whether the beginning of what was asked for is not kept any more.
    pub is_cut: bool,
}

impl Span {
    /// What happened earlier is not kept any more.
    pub fn earliest(now: Timestamp) -> Timestamp {
        Timestamp::from_ms(first_kept(COARSE, now))
    }

    /// The buckets that overlap `from..to`, as far as they are kept and have begun by `now`.
    pub fn of(from: Timestamp, to: Timestamp, now: Timestamp) -> Span {
        let buckets = match from.as_ms() >= first_kept(FINE, now) {
            true => FINE,
            false => COARSE,
        };
        let length = buckets.length_ms;
        let is_cut = from.as_ms() < first_kept(COARSE, now);
        let from = from.as_ms().max(first_kept(COARSE, now));
        let from = from - from.rem_euclid(length);
        let to = to.as_ms().min(now.as_ms() + 1);
        let to = to + (-to).rem_euclid(length);
        Span {
            from: Timestamp::from_ms(from),
            to: Timestamp::from_ms(to.max(from)),
            bucket: Duration::from_millis(length.unsigned_abs()),
            is_cut,
        }
    }

    pub fn bucket_ms(&self) -> i64 {
        i64::try_from(self.bucket.as_millis()).unwrap_or(i64::MAX)
    }

    /// The beginning of each bucket, oldest first.
    pub fn starts(&self) -> impl Iterator<Item = Timestamp> + use<> {
        let length = usize::try_from(self.bucket_ms()).unwrap_or(usize::MAX);
        let starts = (self.from.as_ms()..self.to.as_ms()).step_by(length);
        starts.map(Timestamp::from_ms)
    }
}

fn first_kept(buckets: Buckets, now: Timestamp) -> i64 {
    now.as_ms() - buckets.kept_ms + buckets.length_ms
}

/// What happened to one user's tasks in a period.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub span: Span,
    /// Beginnings of buckets, oldest first, and what happened in each; those of nothing are left out.
    pub buckets: Vec<(Timestamp, Tally)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_period_is_rounded_outwards_to_the_shortest_buckets_that_reach_back() {
        let now = at(1000 * HOUR + 400_000);
        let fine = Span::of(at(1000 * HOUR + 1), now, now);
        assert_eq!(
            (fine.from, fine.to, fine.bucket.as_secs(), fine.is_cut),
            (at(1000 * HOUR), at(1000 * HOUR + 600_000), 300, false)
        );
        assert_eq!(fine.starts().count(), 2);
        let coarse = Span::of(at(990 * HOUR + 1), at(992 * HOUR), now);
        assert_eq!(
            (
                coarse.from,
                coarse.to,
                coarse.bucket.as_secs(),
                coarse.is_cut
            ),
            (at(990 * HOUR), at(992 * HOUR), 3600, false)
        );
    }

    #[test]
    fn no_period_has_more_buckets_than_are_kept() {
        let now = at(1000 * HOUR);
        let all = Span::of(at(0), Timestamp::MAX, now);
        assert!(all.is_cut);
        assert_eq!(all.to, at(1001 * HOUR));
        let count = all.starts().count();
        assert!((168..=170).contains(&count), "{count}");
        let future = Span::of(at(2000 * HOUR), at(2001 * HOUR), now);
        assert_eq!(future.starts().count(), 0);
    }
}
