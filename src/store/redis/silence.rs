//! Which partitions Redis has not answered for within a whole wait. Nobody waits for those until a probe
//! says that they take writes again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::time::Instant;

use super::keys::{Keys, Partition};
use super::step::Steps;

/// More partitions than this share places.
const PLACES: usize = 64;

pub struct Silence {
    /// All partitions are on one server, and share its silence.
    is_one_server: bool,
    began: Instant,
    places: [Place; PLACES],
}

struct Place {
    is_silent: AtomicBool,
    /// When the last answer came, in ms since the beginning.
    answered_at: AtomicU64,
}

impl Silence {
    pub fn new(is_one_server: bool) -> Self {
        let place = || Place {
            is_silent: AtomicBool::new(false),
            answered_at: AtomicU64::new(0),
        };
        Silence {
            is_one_server,
            began: Instant::now(),
            places: std::array::from_fn(|_| place()),
        }
    }

    pub fn covers(&self, partition: Option<Partition>) -> bool {
        self.place(partition)
            .is_some_and(|place| place.is_silent.load(Ordering::Relaxed))
    }

    pub fn answered(&self, partition: Option<Partition>) {
        if let Some(place) = self.place(partition) {
            place
                .answered_at
                .store(self.ms(Instant::now()), Ordering::Relaxed);
        }
    }

    /// A step that began then has waited in vain. Whether silence begins with that: others may have been
    /// answered since.
    pub fn begin(&self, partition: Option<Partition>, since: Instant) -> bool {
        self.place(partition).is_some_and(|place| {
            let answered = place.answered_at.load(Ordering::Relaxed) >= self.ms(since);
            !answered && !place.is_silent.swap(true, Ordering::Relaxed)
        })
    }

    /// Whether there was one.
    pub fn end(&self, partition: Option<Partition>) -> bool {
        self.answered(partition);
        self.place(partition)
            .is_some_and(|place| place.is_silent.swap(false, Ordering::Relaxed))
    }

    fn ms(&self, at: Instant) -> u64 {
        let ms = at.duration_since(self.began).as_millis();
        // Never 0, which is no answer yet.
        u64::try_from(ms).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Asks for every partition that is silent: an answer ends the silence.
    pub async fn probe(&self, steps: &Steps, keys: &Keys) {
        let silent = keys.partitions().filter(|&p| self.covers(Some(p)));
        let at_most = if self.is_one_server { 1 } else { PLACES };
        let probes = silent.take(at_most).map(|p| steps.mark(keys.root(p)));
        futures_util::future::join_all(probes).await;
    }

    /// None for a command of no partition on one server of many: it says nothing about the others.
    fn place(&self, partition: Option<Partition>) -> Option<&Place> {
        let index = match partition {
            _ if self.is_one_server => 0,
            Some(partition) => partition.index() % PLACES,
            None => return None,
        };
        self.places.get(index)
    }
}
