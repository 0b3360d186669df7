//! Which partitions Redis has not answered for within a whole wait. Nobody waits for those until a probe
//! says that they take writes again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::keys::{Keys, Partition};
use super::step::Steps;

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

    /// Whether there was one.
    pub fn end(&self, partition: Option<Partition>) -> bool {
        self.place(partition)
            .is_some_and(|place| place.swap(false, Ordering::Relaxed))
    }

    /// Asks for every partition that is silent: an answer ends the silence.
    pub async fn probe(&self, steps: &Steps, keys: &Keys) {
        let silent = keys.partitions().filter(|&p| self.covers(Some(p)));
        let at_most = if self.is_one_server { 1 } else { PLACES };
        let probes = silent.take(at_most).map(|p| steps.mark(keys.root(p)));
        futures_util::future::join_all(probes).await;
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
