//! The numbers behind `/stats` and `/metrics`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::task::State;
use super::timestamp::Timestamp;
use super::worker::{Place, Worker};

/// Everything that the store counts, for all users or for one.
#[derive(Clone, Debug)]
pub struct Stats {
    pub generated_at: Timestamp,
    pub counts: StateCounts,
    pub by_type: BTreeMap<String, StateCounts>,
    pub queue_oldest_seconds: f64,
    /// Attempts that run now.
    pub running: u64,
    pub latency: Latencies,
    pub windows: Windows,
}

/// Workers, of one process or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crew {
    pub busy: u64,
    pub idle: u64,
    pub replicas: u64,
}

impl Crew {
    /// Of one process.
    pub fn of(worker: &Worker) -> Self {
        let capacity = match worker.place {
            Place::Inside { capacity } => capacity,
            Place::Outside => 0,
        };
        Crew {
            busy: worker.running,
            idle: capacity.saturating_sub(worker.running),
            replicas: 1,
        }
    }
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts([u64; State::ALL.len()]);

impl StateCounts {
    pub fn add(&mut self, state: State, count: u64) {
        self.0[state as usize] += count;
    }

    pub fn of(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Scheduled, queued and retrying.
    pub fn pending(&self) -> u64 {
        self.of(State::Scheduled) + self.of(State::Queued) + self.of(State::Retrying)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Windows {
    pub all: Tally,
    pub minute: Tally,
    pub hour: Tally,
    pub day: Tally,
}

/// What happened within one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Submissions that made a task.
    pub accepted: u64,
    pub duplicates_by_key: u64,
    pub duplicates_by_fingerprint: u64,
    /// Duplicates answered with the result of an ended task.
    pub cache_hits: u64,
    pub key_reused: u64,
    pub attempts: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Tasks that succeeded after more than one attempt.
    pub retry_successes: u64,
    /// Tasks that ended failed.
    pub failures: u64,
    pub leases_lost: u64,
    /// Completions, failures and heartbeats refused for a stale token.
    pub writes_fenced: u64,
    pub saved_executions: u64,
    pub saved_ms: u64,
    pub saved_bytes_not_sent: u64,
    pub saved_bytes_not_stored: u64,
}

impl Tally {
    /// The counters by name, in the order of [`Tally::to_array`].
    pub const NAMES: [&str; 15] = [
        "accepted",
        "duplicates_by_key",
        "duplicates_by_fingerprint",
        "cache_hits",
        "key_reused",
        "attempts",
        "retries",
        "retry_successes",
        "failures",
        "leases_lost",
        "writes_fenced",
        "saved_executions",
        "saved_ms",
        "saved_bytes_not_sent",
        "saved_bytes_not_stored",
    ];

    pub fn to_array(&self) -> [u64; 15] {
        [
            self.accepted,
            self.duplicates_by_key,
            self.duplicates_by_fingerprint,
            self.cache_hits,
            self.key_reused,
            self.attempts,
            self.retries,
            self.retry_successes,
            self.failures,
            self.leases_lost,
            self.writes_fenced,
            self.saved_executions,
            self.saved_ms,
            self.saved_bytes_not_sent,
            self.saved_bytes_not_stored,
        ]
    }

    pub fn from_array(counts: [u64; 15]) -> Self {
        let [
            accepted,
            duplicates_by_key,
            duplicates_by_fingerprint,
            cache_hits,
            key_reused,
            attempts,
            retries,
            retry_successes,
            failures,
            leases_lost,
            writes_fenced,
            saved_executions,
            saved_ms,
            saved_bytes_not_sent,
            saved_bytes_not_stored,
        ] = counts;
        Tally {
            accepted,
            duplicates_by_key,
            duplicates_by_fingerprint,
            cache_hits,
            key_reused,
            attempts,
            retries,
            retry_successes,
            failures,
            leases_lost,
            writes_fenced,
            saved_executions,
            saved_ms,
            saved_bytes_not_sent,
            saved_bytes_not_stored,
        }
    }

    /// Submissions that made no task, as a share of all that were admitted.
    pub fn dedup_rate(&self) -> f64 {
        let duplicates = self.duplicates_by_key + self.duplicates_by_fingerprint;
        ratio(duplicates, duplicates + self.accepted)
    }

    /// Of the attempts after a first one, the share that succeeded.
    pub fn retry_success_rate(&self) -> f64 {
        ratio(self.retry_successes, self.retries)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// Over the current and the last hour.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// From the whole request to the decision.
    pub submit: Histogram,
    /// From being ready to run to the lease.
    pub queue_wait: Histogram,
    /// From the lease to the end of the attempt.
    pub run: Histogram,
}

/// Counts in buckets that grow by a quarter of a power of two: quantiles within 19 %.
#[derive(Clone, Debug, Default)]
pub struct Histogram(BTreeMap<u16, u64>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

impl Histogram {
    const BUCKETS_PER_DOUBLING: f64 = 4.0;
    /// The first bucket ends here.
    const SMALLEST_MS: f64 = 0.01;

    pub fn bucket(ms: f64) -> u16 {
        let steps = ((ms / Self::SMALLEST_MS).max(1.0).log2() * Self::BUCKETS_PER_DOUBLING).ceil();
        steps as u16
    }

    pub fn add(&mut self, bucket: u16, count: u64) {
        *self.0.entry(bucket).or_default() += count;
    }

    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(&bucket, &count)| (bucket, count))
    }

    /// The upper end of a bucket.
    pub fn upper_ms(bucket: u16) -> f64 {
        Self::SMALLEST_MS * (f64::from(bucket) / Self::BUCKETS_PER_DOUBLING).exp2()
    }

    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// In milliseconds, to three decimals; zeros when nothing was counted.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
        }
    }

    fn quantile(&self, share: f64) -> f64 {
        let rank = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets() {
            seen += count;
            if seen >= rank {
                return (Self::upper_ms(bucket) * 1000.0).round() / 1000.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_the_truth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantiles(), Quantiles::default());
        for ms in 1..=1000 {
            histogram.add(Histogram::bucket(f64::from(ms)), 1);
        }
        let Quantiles { p50, p90, p99 } = histogram.quantiles();
        for (found, truth) in [(p50, 500.0), (p90, 900.0), (p99, 990.0)] {
            assert!((found / truth - 1.0_f64).abs() < 0.2, "{found} for {truth}");
        }
        assert_eq!(Histogram::bucket(0.0), 0);
    }

    #[test]
    fn rates_of_nothing_are_zero() {
        assert_eq!(Tally::default().dedup_rate(), 0.0);
        let tally = Tally {
            accepted: 1,
            duplicates_by_key: 2,
            duplicates_by_fingerprint: 1,
            ..Tally::default()
        };
        assert_eq!(tally.dedup_rate(), 0.75);
    }
}
