//! When schedules of each partition are to be looked at, so that nobody looks where none is due. What was learnt at the
//! last look holds until the partition is changed: news tell of that at once, and the version that every change
//! leaves there, which is read together with other things once a second, tells it to those who have missed the news.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::keys::Partition;

/// A partition that holds schedules is looked at again after so long at most, whatever was learnt there: the clock of
/// Redis may have been moved.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// A partition that did not answer is asked again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

pub struct Agenda(Mutex<Plan>);

struct Plan {
    /// Those whose schedules were asked for last. Another release of the configuration may know others.
    types: Vec<String>,
    parts: Vec<Part>,
}

#[derive(Clone, Default)]
struct Part {
    /// None where no schedule was ever kept.
    version: Option<u64>,
    /// Grows with every piece of news.
    heard: u64,
    /// None when there is nothing to look for until there is news.
    look_at: Option<Instant>,
}

impl Part {
    fn has_changed(&mut self) {
        self.heard += 1;
        self.look_at = Some(Instant::now());
    }
}

/// A look at one partition, and the news that was heard of it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub partition: Partition,
    heard: u64,
}

impl Agenda {
    pub fn new(partitions: usize) -> Self {
        Agenda(Mutex::new(Plan {
            types: Vec::new(),
            parts: vec![Part::default(); partitions],
        }))
    }

    /// A schedule there was kept, or changed.
    pub fn changed(&self, partition: Partition) {
        if let Some(part) = self.plan().parts.get_mut(partition.index()) {
            part.has_changed();
        }
    }

    /// Whether that is another version than was known.
    pub fn stands_at(&self, partition: Partition, version: Option<u64>) -> bool {
        let mut plan = self.plan();
        let Some(part) = plan.parts.get_mut(partition.index()) else {
            return false;
        };
        let is_new = part.version != version;
        if is_new {
            part.version = version;
            part.has_changed();
        }
        is_new
    }

    /// News may have been missed.
    pub fn is_unknown(&self) {
        self.plan().look_everywhere();
    }

    /// Partitions where schedules of these types may be due.
    pub fn due(&self, types: &[String]) -> Vec<Look> {
        let mut plan = self.plan();
        if plan.types != types {
            plan.types = types.to_vec();
            plan.look_everywhere();
        }
        let now = Instant::now();
        let parts = plan.parts.iter().enumerate();
        parts
            .filter(|(_, part)| part.look_at.is_some_and(|at| at <= now))
            .map(|(index, part)| Look {
                partition: Partition::at(index),
                heard: part.heard,
            })
            .collect()
    }

    /// What a look has found: the version of the partition, and the time until the next schedule there is due, if there
    /// is one.
    pub fn found(&self, look: Look, version: Option<u64>, next_due_in: Option<Duration>) {
        if let Some(part) = self.plan().parts.get_mut(look.partition.index()) {
            part.version = version;
        }
        // Spread, so that not all partitions are looked at together.
        let rest = LOOK_EVERY.mul_f64(0.75 + fastrand::f64() / 4.0);
        self.look_again(look, next_due_in.map_or(rest, |next| next.min(rest)));
    }

    /// The partition did not answer.
    pub fn failed(&self, look: Look) {
        self.look_again(look, AGAIN_AFTER);
    }

    fn look_again(&self, look: Look, after: Duration) {
        let mut plan = self.plan();
        let part = plan.parts.get_mut(look.partition.index());
        // What was heard during the look may be news.
        if let Some(part) = part.filter(|part| part.heard == look.heard) {
            part.look_at = Some(Instant::now() + after);
        }
    }

    /// The time until something is to be looked at.
    pub fn next_look_in(&self) -> Option<Duration> {
        let plan = self.plan();
        let next = plan.parts.iter().filter_map(|part| part.look_at).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn look_everywhere(&mut self) {
        for part in &mut self.parts {
            if part.version.is_some() {
                part.has_changed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(looks: &[Look]) -> Vec<usize> {
        looks.iter().map(|look| look.partition.index()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_where_no_schedule_was_ever_kept() {
        let agenda = Agenda::new(4);
        let types = ["echo".to_owned()];
        for index in 0..4 {
            assert!(!agenda.stands_at(Partition::at(index), None));
        }
        agenda.is_unknown();
        assert_eq!(agenda.due(&types), []);
        tokio::time::advance(LOOK_EVERY * 2).await;
        assert_eq!(agenda.due(&types), []);
        assert_eq!(agenda.next_look_in(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_is_looked_at_when_something_is_due_there_or_has_changed() {
        let agenda = Agenda::new(2);
        let types = ["echo".to_owned()];
        assert!(agenda.stands_at(Partition::at(1), Some(7)));
        let [look] = agenda.due(&types)[..] else {
            panic!("no look")
        };
        assert_eq!(look.partition, Partition::at(1));
        agenda.found(look, Some(7), Some(Duration::from_secs(5)));
        assert_eq!(agenda.due(&types), []);
        assert_eq!(agenda.next_look_in(), Some(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(partitions(&agenda.due(&types)), [1]);
        agenda.found(look, Some(7), None);
        assert!(!agenda.stands_at(Partition::at(1), Some(7)));
        assert_eq!(agenda.due(&types), []);
        assert!(agenda.stands_at(Partition::at(1), Some(8)));
        assert_eq!(partitions(&agenda.due(&types)), [1]);
        agenda.changed(Partition::at(0));
        assert_eq!(partitions(&agenda.due(&types)), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_during_a_look_is_looked_at_once_more() {
        let agenda = Agenda::new(1);
        let types = ["echo".to_owned()];
        agenda.changed(Partition::at(0));
        let [look] = agenda.due(&types)[..] else {
            panic!("no look")
        };
        agenda.changed(Partition::at(0));
        agenda.found(look, Some(1), None);
        assert_eq!(agenda.due(&types).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_looked_at_anew_now_and_then_and_for_other_types() {
        let agenda = Agenda::new(1);
        let [few, more] = [vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]];
        agenda.stands_at(Partition::at(0), Some(1));
        let found = |types: &[String]| {
            let looks = agenda.due(types);
            looks
                .iter()
                .for_each(|&look| agenda.found(look, Some(1), None));
            looks.len()
        };
        assert_eq!([found(&few), found(&few)], [1, 0]);
        assert_eq!([found(&more), found(&more)], [1, 0]);
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(found(&more), 1);
        let looks = {
            agenda.changed(Partition::at(0));
            agenda.due(&more)
        };
        agenda.failed(looks[0]);
        assert_eq!(found(&more), 0);
        tokio::time::advance(AGAIN_AFTER).await;
        assert_eq!(found(&more), 1);
    }
}
