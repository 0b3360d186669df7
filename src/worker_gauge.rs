//! How busy the workers of this process are: written by them, read by health and stats.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::domain::stats::Crew;

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct WorkerGauge(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    capacity: AtomicUsize,
    busy: AtomicUsize,
}

/// One attempt that runs; counted until it is dropped.
#[derive(Debug)]
pub struct BusyWorker(WorkerGauge);

impl WorkerGauge {
    /// `capacity`: attempts at a time of work that uses the processor; 0 in a process that only serves HTTP.
    pub fn new(capacity: usize) -> Self {
        let gauge = WorkerGauge::default();
        gauge.0.capacity.store(capacity, Ordering::Relaxed);
        gauge
    }

    #[must_use = "the attempt is counted until this is dropped"]
    pub fn begin(&self) -> BusyWorker {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        BusyWorker(self.clone())
    }

    pub fn capacity(&self) -> usize {
        self.0.capacity.load(Ordering::Relaxed)
    }

    /// May exceed the capacity, since work that only waits has a bound of its own.
    pub fn busy(&self) -> usize {
        self.0.busy.load(Ordering::Relaxed)
    }

    /// Of this process alone.
    pub fn crew(&self) -> Crew {
        let (busy, capacity) = (self.busy(), self.capacity());
        Crew {
            busy: busy as u64,
            idle: capacity.saturating_sub(busy) as u64,
            replicas: 1,
        }
    }
}

impl Drop for BusyWorker {
    fn drop(&mut self) {
        self.0.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_attempts_while_they_run() {
        let gauge = WorkerGauge::new(1);
        let attempts = [gauge.begin(), gauge.clone().begin()];
        assert_eq!((gauge.crew().busy, gauge.crew().idle), (2, 0));
        drop(attempts);
        assert_eq!((gauge.crew().busy, gauge.crew().idle), (0, 1));
    }
}
