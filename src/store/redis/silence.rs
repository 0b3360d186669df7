//! Which partitions Redis has not answered for within a whole wait. Nobody waits for those until a probe
//! says that they take writes again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::keys::{Keys, Partition};
use super::step::Steps;
use crate::store::StoreError;

/// More partitions than this share places.
const PLACES: usize = 64;

pub struct Silence {
    /// All partitions are on one server, and share its silence.
    is_one_server: bool,
    silent: [AtomicBool; PLACES],
}

impl Silence {
    pub fn new(is_one_server: bool) -> Self {
        Silence {
            is_one_server,
            silent: [const { AtomicBool::new(false) }; PLACES],
        }
    }

    pub fn covers(&self, partition: Option<Partition>) -> bool {
        self.place(partition)
            .is_some_and(|place| place.load(Ordering::Relaxed))
    }

    /// Whether it begins now.
    pub fn begin(&self, partition: Option<Partition>) -> bool {
        self.place(partition)
            .is_some_and(|place| !place.swap(true, Ordering::Relaxed))
    }

    /// Asks for every partition that is silent, and ends the silence of those that answer.
    pub async fn probe(&self, steps: &Steps, keys: &Keys) {
        let silent = keys.partitions().filter(|&p| self.covers(Some(p)));
        let probes = silent.map(|partition| async move {
            let marked = steps.mark(keys.root(partition)).await;
            if !matches!(marked, Err(StoreError::Unavailable(_))) {
                if let Some(place) = self.place(Some(partition)) {
                    place.store(false, Ordering::Relaxed);
                }
                tracing::info!("Redis answers again");
            }
        });
        let at_most = if self.is_one_server { 1 } else { PLACES };
        futures_util::future::join_all(probes.take(at_most)).await;
    }

    /// None for a command of no partition on one server of many: it says nothing about the others.
    fn place(&self, partition: Option<Partition>) -> Option<&AtomicBool> {
        let index = match partition {
            _ if self.is_one_server => 0,
            Some(partition) => partition.index() % PLACES,
            None => return None,
        };
        self.silent.get(index)
    }
}
