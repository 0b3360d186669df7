use serde::Serialize;

/// How many problems are told one by one.
const TOLD_MAX: usize = 100;

/// Something wrong in a file that did not keep the rest from being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Counted from 1 with the header: a record of a CSV file, a line of a JSON lines file, an element of a JSON array,
    /// the row's own number in a sheet.
    pub row: u64,
    pub message: String,
}

/// The first 100 problems, and how many more there were.
#[derive(Debug, Default)]
pub struct Problems {
    told: Vec<Problem>,
    untold: u64,
}

impl Problems {
    /// `message` is only made when it will be told.
    pub fn add<M: Into<String>>(&mut self, row: u64, message: impl FnOnce() -> M) {
        if self.told.len() < TOLD_MAX {
            self.told.push(Problem {
                row,
                message: message().into(),
            });
        } else {
            self.untold += 1;
        }
    }

    pub fn told(&self) -> &[Problem] {
        &self.told
    }

    /// Problems beyond the first 100.
    pub fn untold(&self) -> u64 {
        self.untold
    }
}
