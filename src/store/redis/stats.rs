//! The numbers behind `/stats`: every partition adds up its own, and this adds up theirs.

use std::collections::HashMap;

use futures_util::future::try_join_all;

use super::keys::{Keys, Partition};
use super::leases::expect;
use super::reply::Reply;
use super::rescue::fold_all;
use super::scripts::STATS;
use super::step::{Step, Steps};
use crate::domain::history::{COARSE, FINE};
use crate::domain::principal::UserId;
use crate::domain::stats::{Latencies, StateCounts, Stats, Tally, Windows};
use crate::domain::task::State;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;

/// Lengths of the buckets that windows are summed from, and how long they are kept, in ms. 0: since ever.
pub const SPANS: [(i64, i64); 4] = [
    (0, 0),
    (10_000, 600_000),
    (FINE.length_ms, FINE.kept_ms),
    (COARSE.length_ms, COARSE.kept_ms),
];

/// For each span, the window that is summed from its buckets, in ms.
const WINDOWS: [i64; 4] = [0, 60_000, 3_600_000, 86_400_000];

pub async fn stats(steps: &Steps, keys: &Keys, user: Option<&UserId>) -> Result<Stats, StoreError> {
    let partitions: Vec<Partition> = match user {
        Some(user) => vec![keys.of_user(user)],
        None => keys.partitions().collect(),
    };
    fold_all(steps, keys, &partitions).await?;
    let parts = partitions
        .iter()
        .map(|&partition| steps.take(step(keys.root(partition), user)));
    let mut sum = Sum::default();
    for reply in try_join_all(parts).await? {
        sum.add(reply)?;
    }
    Ok(sum.stats())
}

fn step(root: &str, user: Option<&UserId>) -> Step {
    let mut step = Step::new(&STATS, &[root]).arg(user.map_or("", UserId::as_str));
    for ((span, _), window) in SPANS.into_iter().zip(WINDOWS) {
        step = step.arg(span).arg(window);
    }
    step
}

#[derive(Default)]
struct Sum {
    now: Timestamp,
    oldest: Option<Timestamp>,
    by_type: HashMap<String, [i64; State::ALL.len()]>,
    tallies: [HashMap<String, u64>; SPANS.len()],
    latency: Latencies,
}

impl Sum {
    fn add(&mut self, mut reply: Reply) -> Result<(), StoreError> {
        expect(&mut reply, "counted")?;
        self.now = self.now.max(Timestamp::from_ms(reply.number()?));
        let oldest = reply.optional()?.map(Timestamp::from_ms);
        self.oldest = match (self.oldest, oldest) {
            (Some(known), Some(oldest)) => Some(known.min(oldest)),
            (known, oldest) => known.or(oldest),
        };
        let mut gauges = reply.part()?;
        while !gauges.is_over() {
            let (name, count) = (gauges.word()?, gauges.number::<i64>()?);
            let Some((state, task_type)) = name.split_once(' ') else {
                continue;
            };
            if let Some(state) = State::parse(state) {
                self.by_type.entry(task_type.to_owned()).or_default()[state as usize] += count;
            }
        }
        for sums in &mut self.tallies {
            let mut counts = reply.part()?;
            while !counts.is_over() {
                let (name, count) = (counts.word()?, counts.number::<u64>()?);
                *sums.entry(name).or_default() += count;
            }
        }
        self.add_latencies(reply.part()?)
    }

    fn add_latencies(&mut self, mut counts: Reply) -> Result<(), StoreError> {
        while !counts.is_over() {
            let (name, count) = (counts.word()?, counts.number()?);
            let Some((metric, bucket)) = name.split_once(' ') else {
                continue;
            };
            let histogram = match metric {
                "submit" => &mut self.latency.submit,
                "queue_wait" => &mut self.latency.queue_wait,
                _ => &mut self.latency.run,
            };
            histogram.add(bucket.parse().unwrap_or(0), count);
        }
        Ok(())
    }

    fn stats(self) -> Stats {
        let mut counts = StateCounts::default();
        let mut by_type = std::collections::BTreeMap::new();
        for (task_type, states) in self.by_type {
            let mut of_type = StateCounts::default();
            for (state, count) in State::ALL.into_iter().zip(states) {
                let count = u64::try_from(count).unwrap_or(0);
                of_type.add(state, count);
                counts.add(state, count);
            }
            if of_type.total() > 0 {
                by_type.insert(task_type, of_type);
            }
        }
        let [all, minute, hour, day] = self.tallies.map(|sums| tally(&sums));
        Stats {
            generated_at: self.now,
            running: counts.of(State::Running),
            counts,
            queue_oldest_seconds: self
                .oldest
                .map_or(0.0, |at| self.now.since(at).as_secs_f64()),
            latency: self.latency,
            windows: Windows {
                all,
                minute,
                hour,
                day,
            },
            by_type,
        }
    }
}

pub fn tally(sums: &HashMap<String, u64>) -> Tally {
    Tally::from_array(Tally::NAMES.map(|name| sums.get(name).copied().unwrap_or(0)))
}
