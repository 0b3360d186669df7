//! What the workers of this process do: written by them, read by health and stats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::domain::worker::{Place, Worker};

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct WorkerGauge(Arc<Process>);

#[derive(Debug)]
struct Process {
    name: String,
    types: Mutex<BTreeSet<String>>,
    capacity: usize,
    since: Timestamp,
    running: Mutex<Running>,
}

/// Attempts by the order in which they began.
#[derive(Debug, Default)]
struct Running {
    begun: u64,
    tasks: BTreeMap<u64, TaskId>,
}

/// One attempt that runs; counted until it is dropped.
#[derive(Debug)]
pub struct BusyWorker {
    gauge: WorkerGauge,
    number: u64,
}

impl WorkerGauge {
    /// `types`: those that this process can run. `capacity`: attempts at a time of work that uses the
    /// processor; 0 in a process that only serves HTTP.
    pub fn new(name: String, types: BTreeSet<String>, capacity: usize) -> Self {
        WorkerGauge(Arc::new(Process {
            name,
            types: Mutex::new(types),
            capacity,
            since: now(),
            running: Mutex::default(),
        }))
    }

    #[must_use = "the attempt is counted until this is dropped"]
    pub fn begin(&self, task: &TaskId) -> BusyWorker {
        let mut running = self.running();
        running.begun += 1;
        let number = running.begun;
        running.tasks.insert(number, task.clone());
        BusyWorker {
            gauge: self.clone(),
            number,
        }
    }

    /// From now on this process runs these.
    pub fn set_types(&self, types: BTreeSet<String>) {
        *self.types() = types;
    }

    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// May exceed the capacity, since work that only waits has a bound of its own.
    pub fn busy(&self) -> usize {
        self.running().tasks.len()
    }

    /// Of this process alone.
    pub fn report(&self) -> Worker {
        let Process {
            name,
            capacity,
            since,
            ..
        } = &*self.0;
        let running = self.running();
        Worker {
            name: name.clone(),
            place: Place::Inside {
                capacity: *capacity as u64,
            },
            types: self.types().clone(),
            running: running.tasks.len() as u64,
            tasks: running
                .tasks
                .values()
                .take(Worker::TASKS_MAX)
                .cloned()
                .collect(),
            since: *since,
            heard_at: now(),
        }
    }

    fn types(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.types.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BusyWorker {
    fn drop(&mut self) {
        self.gauge.running().tasks.remove(&self.number);
    }
}

fn now() -> Timestamp {
    Timestamp::from_ms(jiff::Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::principal::UserId;
    use crate::domain::stats::Crew;

    #[test]
    fn counts_attempts_while_they_run() {
        let gauge = WorkerGauge::new("w".into(), BTreeSet::new(), 1);
        let ids = [(); 2].map(|()| TaskId::random(&UserId::anonymous()));
        let attempts = ids.each_ref().map(|id| gauge.clone().begin(id));
        let crew = Crew::of(&gauge.report());
        assert_eq!((crew.busy, crew.idle), (2, 0));
        assert_eq!(gauge.report().tasks, ids);
        drop(attempts);
        let crew = Crew::of(&gauge.report());
        assert_eq!((crew.busy, crew.idle), (0, 1));
    }
}
