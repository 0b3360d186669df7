//! How busy this process's workers are: the pool writes it, health and stats read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::runner::Load;

/// Cheap to clone; all clones show the same.
#[derive(Clone, Debug)]
pub struct PoolGauge(Arc<Bounds>);

#[derive(Debug)]
struct Bounds {
    processor: Bound,
    waiting: Bound,
}

#[derive(Debug)]
struct Bound {
    capacity: usize,
    busy: AtomicUsize,
}

impl PoolGauge {
    /// For `workers` attempts that use the processor at a time; with 0, nothing runs here at all.
    pub fn new(workers: usize) -> Self {
        let bound = |capacity| Bound {
            capacity,
            busy: AtomicUsize::new(0),
        };
        let waiting = if workers == 0 { 0 } else { Load::WAITING_MAX };
        PoolGauge(Arc::new(Bounds {
            processor: bound(workers),
            waiting: bound(waiting),
        }))
    }

    /// Attempts that may run at a time.
    pub fn capacity(&self, load: Load) -> usize {
        self.bound(load).capacity
    }

    /// Attempts that run.
    pub fn busy(&self, load: Load) -> usize {
        self.bound(load).busy.load(Relaxed)
    }

    /// Attempts that could begin now.
    pub fn idle(&self, load: Load) -> usize {
        self.capacity(load).saturating_sub(self.busy(load))
    }

    /// Counts one attempt until the guard is dropped.
    pub fn enter(&self, load: Load) -> Busy {
        self.bound(load).busy.fetch_add(1, Relaxed);
        Busy {
            gauge: self.clone(),
            load,
        }
    }

    fn bound(&self, load: Load) -> &Bound {
        match load {
            Load::Processor => &self.0.processor,
            Load::Waiting => &self.0.waiting,
        }
    }
}

/// One attempt that runs.
#[derive(Debug)]
pub struct Busy {
    gauge: PoolGauge,
    load: Load,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.gauge.bound(self.load).busy.fetch_sub(1, Relaxed);
    }
}
