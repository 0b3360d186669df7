//! What a report says. All of it is read in a bounded number of bounded steps.

use serde::Serialize;

use crate::domain::history::History;
use crate::domain::principal::UserId;
use crate::domain::stats::{Histogram, Quantiles, StateCounts, Stats, Tally};
use crate::domain::task::{State, Task};
use crate::domain::timestamp::Timestamp;
use crate::runner::AttemptError;
use crate::runners::chores::not_now;
use crate::store::{Found, ListFilter, MatchedBy, Store, StoreError};

/// Tasks among which the most repeated ones are looked for: the newest.
const LOOKED_AT_MAX: usize = 500;
const PAGE: usize = 100;
/// The most repeated tasks that are shown.
const REPEATED_MAX: usize = 10;

#[derive(Serialize)]
pub struct Numbers {
    pub generated_at: Timestamp,
    pub user: String,
    pub period: Period,
    /// What happened in the period.
    pub totals: Totals,
    /// The same for each bucket of the period in which anything happened, oldest first.
    pub buckets: Vec<Bucket>,
    /// Tasks as they stand now, whenever they were submitted.
    pub tasks: Counts,
    pub by_type: Vec<OfType>,
    /// Over the current and the last hour, whatever the period.
    pub latency_ms: Latency,
    /// Of the user's newest tasks, those made in the period that most duplicates asked for.
    pub most_repeated: Vec<Repeated>,
}

#[derive(Serialize)]
pub struct Period {
    pub asked_from: Timestamp,
    pub asked_to: Timestamp,
    /// In whole buckets.
    pub from: Timestamp,
    pub to: Timestamp,
    pub bucket_seconds: u64,
    /// Whether a part of what was asked for is not kept any more.
    pub is_cut: bool,
}

#[derive(Serialize)]
pub struct Totals {
    pub accepted: u64,
    pub duplicates_by_key: u64,
    pub duplicates_by_fingerprint: u64,
    pub dedup_rate: f64,
    pub cache_hits: u64,
    pub key_reused: u64,
    pub attempts: u64,
    pub retries: u64,
    pub retry_success_rate: f64,
    pub failures: u64,
    pub leases_lost: u64,
    pub writes_fenced: u64,
    pub saved_executions: u64,
    pub saved_seconds: f64,
    pub saved_bytes_not_sent: u64,
    pub saved_bytes_not_stored: u64,
}

#[derive(Serialize)]
pub struct Bucket {
    pub at: Timestamp,
    #[serde(flatten)]
    pub totals: Totals,
}

#[derive(Serialize)]
pub struct OfType {
    #[serde(rename = "type")]
    pub name: String,
    #[serde(flatten)]
    pub counts: Counts,
}

#[derive(Serialize)]
pub struct Counts {
    pub total: u64,
    pub scheduled: u64,
    pub queued: u64,
    pub running: u64,
    pub retrying: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
}

#[derive(Serialize)]
pub struct Latency {
    pub submit: QuantilesOf,
    pub queue_wait: QuantilesOf,
    pub run: QuantilesOf,
}

#[derive(Serialize)]
pub struct QuantilesOf {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

#[derive(Serialize)]
pub struct Repeated {
    pub id: String,
    #[serde(rename = "type")]
    pub task_type: String,
    pub state: &'static str,
    pub duplicates: u64,
    /// What the ledger still tells of: the newest 100 of them.
    pub listed: u64,
    pub listed_by_key: u64,
    pub listed_by_fingerprint: u64,
    pub listed_seconds_saved: f64,
    pub newest_at: Option<Timestamp>,
}

impl Numbers {
    pub async fn gather(
        store: &dyn Store,
        user: &UserId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Numbers, AttemptError> {
        let history = store.history(user, from, to).await.map_err(not_now)?;
        let stats = store.stats(Some(user)).await.map_err(not_now)?;
        let most_repeated = most_repeated(store, user, from, to)
            .await
            .map_err(not_now)?;
        Ok(Numbers {
            generated_at: stats.generated_at,
            user: user.to_string(),
            period: Period {
                asked_from: from,
                asked_to: to,
                from: history.span.from,
                to: history.span.to,
                bucket_seconds: history.span.bucket.as_secs(),
                is_cut: history.span.is_cut,
            },
            totals: Totals::of(&sum(&history)),
            buckets: history
                .buckets
                .iter()
                .map(|(at, tally)| Bucket {
                    at: *at,
                    totals: Totals::of(tally),
                })
                .collect(),
            tasks: Counts::of(&stats.counts),
            by_type: by_type(&stats),
            latency_ms: Latency {
                submit: QuantilesOf::of(&stats.latency.submit),
                queue_wait: QuantilesOf::of(&stats.latency.queue_wait),
                run: QuantilesOf::of(&stats.latency.run),
            },
            most_repeated,
        })
    }
}

fn sum(history: &History) -> Tally {
    let mut sums = [0_u64; Tally::NAMES.len()];
    for (_, tally) in &history.buckets {
        for (sum, count) in sums.iter_mut().zip(tally.to_array()) {
            *sum = sum.saturating_add(count);
        }
    }
    Tally::from_array(sums)
}

fn by_type(stats: &Stats) -> Vec<OfType> {
    let of_type = stats.by_type.iter().map(|(name, counts)| OfType {
        name: name.clone(),
        counts: Counts::of(counts),
    });
    of_type.collect()
}

async fn most_repeated(
    store: &dyn Store,
    user: &UserId,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Repeated>, StoreError> {
    let mut tasks: Vec<Task> = Vec::new();
    let (mut cursor, mut looked_at) = (None, 0);
    // Short pages are counted as whole ones, so that there is an end to them.
    while looked_at < LOOKED_AT_MAX {
        let filter = ListFilter {
            limit: PAGE,
            cursor,
            ..ListFilter::default()
        };
        let page = store.list(user, filter).await?;
        looked_at += PAGE;
        let in_period = |task: &Task| (from..to).contains(&task.created_at) && task.duplicates > 0;
        tasks.extend(page.tasks.into_iter().filter(in_period));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    tasks.sort_by_key(|task| (std::cmp::Reverse(task.duplicates), task.id.clone()));
    tasks.truncate(REPEATED_MAX);
    let mut repeated = Vec::with_capacity(tasks.len());
    for task in tasks {
        // One that was forgotten in between has no ledger any more.
        if let Found::Here(entries) = store.ledger(user, &task.id).await? {
            let by = |matched| entries.iter().filter(|e| e.matched_by == matched).count() as u64;
            repeated.push(Repeated {
                id: task.id.to_string(),
                task_type: task.task_type,
                state: task.state.name(),
                duplicates: task.duplicates,
                listed: entries.len() as u64,
                listed_by_key: by(MatchedBy::IdempotencyKey),
                listed_by_fingerprint: by(MatchedBy::Fingerprint) + by(MatchedBy::DedupBy),
                listed_seconds_saved: seconds(entries.iter().map(|e| e.seconds_saved).sum()),
                newest_at: entries.first().map(|entry| entry.at),
            });
        }
    }
    Ok(repeated)
}

impl Totals {
    pub fn of(tally: &Tally) -> Self {
        Totals {
            accepted: tally.accepted,
            duplicates_by_key: tally.duplicates_by_key,
            duplicates_by_fingerprint: tally.duplicates_by_fingerprint,
            dedup_rate: tally.dedup_rate(),
            cache_hits: tally.cache_hits,
            key_reused: tally.key_reused,
            attempts: tally.attempts,
            retries: tally.retries,
            retry_success_rate: tally.retry_success_rate(),
            failures: tally.failures,
            leases_lost: tally.leases_lost,
            writes_fenced: tally.writes_fenced,
            saved_executions: tally.saved_executions,
            saved_seconds: tally.saved_ms as f64 / 1000.0,
            saved_bytes_not_sent: tally.saved_bytes_not_sent,
            saved_bytes_not_stored: tally.saved_bytes_not_stored,
        }
    }

    /// Each by its name.
    pub fn named(&self) -> [(&'static str, f64); 16] {
        [
            ("accepted", self.accepted as f64),
            ("duplicates_by_key", self.duplicates_by_key as f64),
            (
                "duplicates_by_fingerprint",
                self.duplicates_by_fingerprint as f64,
            ),
            ("dedup_rate", self.dedup_rate),
            ("cache_hits", self.cache_hits as f64),
            ("key_reused", self.key_reused as f64),
            ("attempts", self.attempts as f64),
            ("retries", self.retries as f64),
            ("retry_success_rate", self.retry_success_rate),
            ("failures", self.failures as f64),
            ("leases_lost", self.leases_lost as f64),
            ("writes_fenced", self.writes_fenced as f64),
            ("saved_executions", self.saved_executions as f64),
            ("saved_seconds", self.saved_seconds),
            ("saved_bytes_not_sent", self.saved_bytes_not_sent as f64),
            ("saved_bytes_not_stored", self.saved_bytes_not_stored as f64),
        ]
    }
}

impl Counts {
    pub fn of(counts: &StateCounts) -> Self {
        Counts {
            total: counts.total(),
            scheduled: counts.of(State::Scheduled),
            queued: counts.of(State::Queued),
            running: counts.of(State::Running),
            retrying: counts.of(State::Retrying),
            succeeded: counts.of(State::Succeeded),
            failed: counts.of(State::Failed),
            cancelled: counts.of(State::Cancelled),
        }
    }

    /// Each by its name.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("total", self.total),
            ("scheduled", self.scheduled),
            ("queued", self.queued),
            ("running", self.running),
            ("retrying", self.retrying),
            ("succeeded", self.succeeded),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
        ]
    }
}

impl Latency {
    /// Each by its name.
    pub fn named(&self) -> [(&'static str, &QuantilesOf); 3] {
        [
            ("submit", &self.submit),
            ("queue_wait", &self.queue_wait),
            ("run", &self.run),
        ]
    }
}

impl QuantilesOf {
    fn of(histogram: &Histogram) -> Self {
        let Quantiles { p50, p90, p99 } = histogram.quantiles();
        QuantilesOf { p50, p90, p99 }
    }
}

/// To the millisecond.
fn seconds(sum: f64) -> f64 {
    (sum * 1000.0).round() / 1000.0
}
