//! Who works, and on what.

use std::collections::{BTreeMap, BTreeSet};

use super::task::TaskId;
use super::timestamp::Timestamp;

/// A worker as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    pub name: String,
    pub place: Place,
    /// Of a process: the types that it can run. Of a worker outside: those of the tasks that it holds.
    pub types: BTreeSet<String>,
    /// Attempts that it runs now.
    pub running: u64,
    /// Some of their tasks, at most [`Worker::TASKS_MAX`].
    pub tasks: Vec<TaskId>,
    /// When the process began; of a worker outside, when it took the oldest lease that it holds.
    pub since: Timestamp,
    /// When it was last heard of.
    pub heard_at: Timestamp,
}

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a process of the service, with room for so many attempts that use the processor.
    Inside { capacity: u64 },
    /// Elsewhere: it leases over HTTP.
    Outside,
}

impl Worker {
    /// Tasks that are named; more are only counted.
    pub const TASKS_MAX: usize = 100;
}

/// A lease that a worker outside holds.
#[derive(Clone, Debug)]
pub struct OutsideLease {
    pub worker: String,
    pub task_type: String,
    pub task: TaskId,
    pub leased_at: Timestamp,
    /// When it was last renewed.
    pub heard_at: Timestamp,
}

/// The workers outside, told by the leases that they hold.
#[derive(Default)]
pub struct OutsideWorkers(BTreeMap<String, Worker>);

impl OutsideWorkers {
    pub fn add(&mut self, lease: OutsideLease) {
        let OutsideLease {
            worker: name,
            task_type,
            task,
            leased_at,
            heard_at,
        } = lease;
        let worker = self.0.entry(name.clone()).or_insert_with(|| Worker {
            name,
            place: Place::Outside,
            types: BTreeSet::new(),
            running: 0,
            tasks: Vec::new(),
            since: leased_at,
            heard_at,
        });
        worker.running += 1;
        worker.since = worker.since.min(leased_at);
        worker.heard_at = worker.heard_at.max(heard_at);
        worker.types.insert(task_type);
        if worker.tasks.len() < Worker::TASKS_MAX {
            worker.tasks.push(task);
        }
    }

    /// By name.
    pub fn into_workers(self) -> impl Iterator<Item = Worker> {
        self.0.into_values()
    }
}
