//! Successes on their way to Redis.

use super::leases;
use super::lines::Together;
use super::step::Steps;
use crate::domain::task::Task;
use crate::store::{Fenced, Held, StoreError, TaskResult};

pub struct Completion {
    pub held: Held,
    pub result: TaskResult,
}

impl Together for Completion {
    /// By itself: a record that cannot be read harms no other.
    type Answer = Result<Fenced<Task>, StoreError>;
    const BATCH_MAX: usize = 64;

    fn bytes(&self) -> usize {
        match &self.result {
            TaskResult::Inline(text) => text.get().len(),
            TaskResult::Blob { .. } => 0,
        }
    }

    async fn step(
        steps: &Steps,
        root: &str,
        all: &[Self],
    ) -> Result<Vec<Self::Answer>, StoreError> {
        leases::complete(steps, root, all).await
    }
}
