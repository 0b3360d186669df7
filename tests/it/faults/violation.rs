//! What must never be seen.

use std::fmt;

#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An acknowledged task is not there any more.
    Lost,
    /// One key was answered with two tasks.
    TwoIdsForAKey,
    /// Two tasks are on record for one piece of work.
    DuplicateTask,
    /// A task on record that nobody submitted.
    Phantom,
    /// A good submission was refused for good.
    Refused,
    /// An ended task was seen otherwise later.
    ChangedAfterItsEnd,
    /// A step that no task may take.
    IllegalStep,
    /// A task has not ended though the faults are over.
    NotEnded,
    /// A task did not succeed though nothing in it can fail.
    Failed,
    /// Completed by another than the holder of the newest lease on record, or more often than there are tasks.
    CompletedTwice,
    /// Completed by the holder of the newest lease on record, and there was a newer one that is not on record.
    NewerLeaseGone,
    /// One lease was run twice, or an execution was told what it must be told wrongly.
    Execution,
    /// `justonce doctor` finds records that contradict each other, or a store that is not well.
    Contradiction,
    /// A program ran, and neither its task is on record nor was anybody told of it.
    Vanished,
    /// An attempt ran, and earlier ones only are on record.
    Uncounted,
    /// What is said to have been saved is not what was not executed.
    Savings,
    /// A process ended without having been told to.
    Crash,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}
