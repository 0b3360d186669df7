//! Which partitions Redis has not answered for within a whole wait. Nobody waits for those until a probe
//! says that they take writes again.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tokio::time::Instant;

use super::keys::{Keys, Partition};
use super::step::Steps;

/// More partitions than this share places.
const PLACES: usize = 64;

/// What is kept of [`Why`] in a place.
const SERVES: u8 = 0;
const NO_ANSWER: u8 = 1;
const NO_WRITES: u8 = 2;

/// What is the matter with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NoAnswer,
    /// It answers that it is busy, loading, a replica, or cannot persist.
    TakesNoWrites,
}

impl Why {
    pub fn text(self) -> &'static str {
        match self {
            Why::NoAnswer => "Redis does not answer",
            Why::TakesNoWrites => "Redis takes no writes",
        }
    }
}

pub struct Silence {
    /// All partitions are on one server, and share its silence.
    is_one_server: bool,
    began: Instant,
    places: [Place; PLACES],
}

struct Place {
    why: AtomicU8,
    /// When the last answer came, in ms since the beginning.
    answered_at: AtomicU64,
}

impl Silence {
    pub fn new(is_one_server: bool) -> Self {
        let place = || Place {
            why: AtomicU8::new(SERVES),
            answered_at: AtomicU64::new(0),
        };
        Silence {
            is_one_server,
            began: Instant::now(),
            places: std::array::from_fn(|_| place()),
        }
    }

    /// Why nobody waits for the partition now, if so.
    pub fn why(&self, partition: Option<Partition>) -> Option<Why> {
        match self.place(partition)?.why.load(Ordering::Relaxed) {
            SERVES => None,
            NO_WRITES => Some(Why::TakesNoWrites),
            _ => Some(Why::NoAnswer),
        }
    }

    pub fn is_anywhere(&self) -> bool {
        let silent = |place: &Place| place.why.load(Ordering::Relaxed) != SERVES;
        self.places.iter().any(silent)
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
    pub fn begin(&self, partition: Option<Partition>, since: Instant, why: Why) -> bool {
        self.place(partition).is_some_and(|place| {
            let answered = place.answered_at.load(Ordering::Relaxed) >= self.ms(since);
            let why = match why {
                Why::NoAnswer => NO_ANSWER,
                Why::TakesNoWrites => NO_WRITES,
            };
            !answered && place.why.swap(why, Ordering::Relaxed) == SERVES
        })
    }

    /// Whether there was one.
    pub fn end(&self, partition: Option<Partition>) -> bool {
        self.answered(partition);
        self.place(partition)
            .is_some_and(|place| place.why.swap(SERVES, Ordering::Relaxed) != SERVES)
    }

    fn ms(&self, at: Instant) -> u64 {
        let ms = at.duration_since(self.began).as_millis();
        // Never 0, which is no answer yet.
        u64::try_from(ms).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Asks for every partition that is silent: an answer ends the silence.
    pub async fn probe(&self, steps: &Steps, keys: &Keys) {
        let silent = keys.partitions().filter(|&p| self.why(Some(p)).is_some());
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
