//! What this replica has been told: by each partition a mark, below which no later answer may be.
//!
//! Each replica has a mark of its own in each partition, and every promise raises it there. State that was
//! emptied, set back, or promoted without what was acknowledged has a lower one: every step looks at it
//! (`lua/parts/mark.lua`), and is refused before anything is acknowledged again. The marks are remembered beside the process, so that a
//! replica notices after its own restart too.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::keys::Partition;
use crate::seeded_faults::SeededFault;

/// In the data folder.
const FILE_NAME: &str = "redis-marks.json";

/// What a replica knows of one epoch: the time from the store's beginning, or from an accepted loss.
pub struct Known {
    epoch: String,
    /// What the marks are called.
    name: String,
    floors: Vec<AtomicU64>,
}

pub struct Marks {
    replica: String,
    known: RwLock<Arc<Known>>,
    is_lost: AtomicBool,
    file: Option<PathBuf>,
    /// What the file holds.
    written: Mutex<Option<Remembered>>,
}

/// As it is remembered between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    replica: String,
    epoch: String,
    marks: Vec<u64>,
}

impl Marks {
    /// With what an earlier run of this replica has left in the folder.
    pub fn open(folder: Option<&Path>) -> std::io::Result<Marks> {
        let file = folder.map(|folder| folder.join(FILE_NAME));
        let remembered = match &file {
            Some(file) => read(file)?,
            None => None,
        };
        let Remembered {
            replica,
            epoch,
            marks,
        } = remembered.unwrap_or_else(|| Remembered {
            replica: uuid::Uuid::new_v4().simple().to_string(),
            epoch: String::new(),
            marks: Vec::new(),
        });
        Ok(Marks {
            known: RwLock::new(Arc::new(Known::new(&replica, &epoch, marks))),
            replica,
            is_lost: AtomicBool::new(false),
            file,
            written: Mutex::default(),
        })
    }

    /// Of somebody who was told nothing.
    pub fn nobodys() -> Marks {
        Marks {
            replica: String::new(),
            known: RwLock::new(Arc::new(Known::new("", "", Vec::new()))),
            is_lost: AtomicBool::new(false),
            file: None,
            written: Mutex::default(),
        }
    }

    pub fn replica(&self) -> &str {
        &self.replica
    }

    pub fn known(&self) -> Arc<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Redis does not hold any more what this replica knew of that epoch.
    pub fn lose(&self, known: &Arc<Known>) {
        if Arc::ptr_eq(known, &self.known()) && !self.is_lost.swap(true, Ordering::AcqRel) {
            tracing::error!(
                epoch = known.epoch,
                "Redis has lost what was acknowledged: nothing is served until an operator accepts \
                 it with `justonce doctor --accept-state-loss`"
            );
        }
    }

    /// Of an epoch in which this replica was told nothing yet.
    pub fn of(&self, epoch: &str, partitions: usize) -> Arc<Known> {
        Arc::new(Known::new(&self.replica, epoch, vec![0; partitions]))
    }

    /// Goes on in that epoch.
    pub fn begin(&self, fresh: Arc<Known>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.is_lost.store(false, Ordering::Release);
    }

    /// Writes down what is known. A torn file cannot come of it, a stale one can.
    pub fn remember(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        if SeededFault::RedisMarksNotKept.is_on() {
            return Ok(());
        }
        let known = self.known();
        let remembered = Remembered {
            replica: self.replica.clone(),
            epoch: known.epoch.clone(),
            marks: known.floors.iter().map(load).collect(),
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref() == Some(&remembered) {
            return Ok(());
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut whole = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut whole, &remembered)?;
        // A name that is on disk before its bytes are would be a torn file after a power loss.
        whole.as_file().sync_all()?;
        whole.persist(file)?;
        *written = Some(remembered);
        Ok(())
    }
}

impl Known {
    fn new(replica: &str, epoch: &str, marks: Vec<u64>) -> Self {
        Known {
            epoch: epoch.to_owned(),
            name: format!("{epoch}:{replica}"),
            floors: marks.into_iter().map(AtomicU64::new).collect(),
        }
    }

    /// Empty before the first epoch.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn partitions(&self) -> usize {
        self.floors.len()
    }

    /// The highest mark that an answer has brought.
    pub fn floor(&self, partition: Partition) -> u64 {
        self.floors.get(partition.index()).map_or(0, load)
    }

    pub fn saw(&self, partition: Partition, mark: u64) {
        if let Some(floor) = self.floors.get(partition.index()) {
            floor.fetch_max(mark, Ordering::AcqRel);
        }
    }
}

fn load(mark: &AtomicU64) -> u64 {
    mark.load(Ordering::Acquire)
}

fn read(file: &Path) -> std::io::Result<Option<Remembered>> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&text).map(Some).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_grow_and_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let marks = Marks::open(Some(folder.path())).unwrap();
        marks.begin(marks.of("e1", 2));
        let known = marks.known();
        known.saw(Partition::at(1), 7);
        known.saw(Partition::at(1), 5);
        marks.remember().unwrap();
        let later = Marks::open(Some(folder.path())).unwrap();
        assert_eq!(later.replica(), marks.replica());
        assert_eq!(later.known().epoch(), "e1");
        assert_eq!(later.known().floor(Partition::at(0)), 0);
        assert_eq!(later.known().floor(Partition::at(1)), 7);
    }

    #[test]
    fn a_late_answer_of_an_earlier_epoch_says_nothing_of_this_one() {
        let marks = Marks::open(None).unwrap();
        marks.begin(marks.of("e1", 1));
        let earlier = marks.known();
        marks.lose(&earlier);
        assert!(marks.is_lost());
        marks.begin(marks.of("e2", 1));
        earlier.saw(Partition::at(0), 9);
        marks.lose(&earlier);
        assert!(!marks.is_lost());
        assert_eq!(marks.known().floor(Partition::at(0)), 0);
    }
}
