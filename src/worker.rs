//! Runs tasks: the only place that knows leases, time-outs and retries.
//!
//! ```text
//! Pool ── leases in batches ──> Attempt ── heartbeats ──> Pulse
//!                                  ├── Report: complete · fail · release, repeated until it is known
//!                                  └── Handover: what someone outside goes on with
//! Rescuer   does what time has made due        Sweeper   deletes bytes that no record names
//! ```

pub mod attempt;
pub mod handover;
pub mod herald;
pub mod lanes;
pub mod pool;
pub mod pulse;
pub mod report;
pub mod rescuer;
pub mod sweeper;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::blobs::Blobs;
use crate::domain::task_type::TaskTypes;
use crate::limits::Limits;
use crate::runners::Runners;
use crate::store::Store;
use crate::worker_gauge::WorkerGauge;

/// What attempts work with. Cheap to clone.
#[derive(Clone)]
pub struct Workshop {
    tools: Arc<Tools>,
    /// Room for those who look after what was handed over.
    handovers: Arc<Semaphore>,
}

#[derive(Clone)]
pub struct Tools {
    pub store: Arc<dyn Store>,
    pub blobs: Arc<dyn Blobs>,
    pub types: Arc<TaskTypes>,
    pub runners: Runners,
    pub limits: Limits,
    /// Its capacity is the bound for work that uses the processor.
    pub gauge: WorkerGauge,
}

impl Workshop {
    pub fn new(tools: Tools) -> Self {
        Workshop {
            tools: Arc::new(tools),
            handovers: Arc::new(Semaphore::new(handover::WATCHED_MAX)),
        }
    }

    /// The same, for other types.
    pub fn with(&self, types: Arc<TaskTypes>, runners: Runners) -> Self {
        Workshop {
            tools: Arc::new(Tools {
                types,
                runners,
                ..Tools::clone(&self.tools)
            }),
            handovers: self.handovers.clone(),
        }
    }
}

impl std::ops::Deref for Workshop {
    type Target = Tools;

    fn deref(&self) -> &Tools {
        &self.tools
    }
}

#[cfg(test)]
mod tests;
