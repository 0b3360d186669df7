//! Successes on their way to Redis. Those that come while a step of their partition is under way share the
//! next one, which costs a fraction of a step for each; one that comes alone does not wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::keys::Partition;
use super::leases;
use super::step::{Steps, unavailable};
use crate::domain::task::Task;
use crate::store::{Fenced, Held, StoreError, TaskResult};

/// Tasks that one step completes, at most.
const BATCH_MAX: usize = 64;
/// Bytes of results that one step carries, about.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Of all partitions.
pub struct Completions(Vec<Arc<Mutex<Line>>>);

/// What waits in one partition.
#[derive(Default)]
struct Line {
    waiting: Vec<Waiting>,
    /// Whether somebody takes what waits.
    is_served: bool,
}

struct Waiting {
    held: Held,
    result: TaskResult,
    answer: oneshot::Sender<Result<Fenced<Task>, StoreError>>,
}

impl Completions {
    pub fn new(partitions: usize) -> Self {
        Completions((0..partitions).map(|_| Arc::default()).collect())
    }

    pub async fn complete(
        &self,
        steps: &Steps,
        (partition, root): (Partition, &str),
        held: Held,
        result: TaskResult,
    ) -> Result<Fenced<Task>, StoreError> {
        let given_up = || unavailable("a completion was given up, outcome unknown");
        let line = self.0.get(partition.index()).ok_or_else(given_up)?;
        let (answer, told) = oneshot::channel();
        let is_served = {
            let mut line = lock(line);
            line.waiting.push(Waiting {
                held,
                result,
                answer,
            });
            std::mem::replace(&mut line.is_served, true)
        };
        if !is_served {
            // By a task of its own: whoever came first may be dropped, and the others wait on.
            tokio::spawn(serve(line.clone(), steps.clone(), root.to_owned()));
        }
        told.await.unwrap_or_else(|_| Err(given_up()))
    }
}

/// Takes steps until nothing waits.
async fn serve(line: Arc<Mutex<Line>>, steps: Steps, root: String) {
    loop {
        let batch = lock(&line).next();
        if batch.is_empty() {
            return;
        }
        let ended: Vec<_> = batch.iter().map(|one| (&one.held, &one.result)).collect();
        match leases::complete(&steps, &root, &ended).await {
            Ok(recorded) => {
                for (one, recorded) in batch.into_iter().zip(recorded) {
                    let _ = one.answer.send(Ok(recorded));
                }
            }
            Err(error) => {
                for one in batch {
                    let _ = one.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

impl Line {
    /// The oldest that fit into one step; with none, nobody serves the line any more.
    fn next(&mut self) -> Vec<Waiting> {
        let mut bytes = 0;
        let fits = |one: &&Waiting| {
            let before = bytes;
            bytes += match &one.result {
                TaskResult::Inline(text) => text.get().len(),
                TaskResult::Blob { .. } => 0,
            };
            before < BATCH_BYTES_MAX
        };
        let count = self.waiting.iter().take(BATCH_MAX).take_while(fits).count();
        self.is_served = count > 0;
        self.waiting.drain(..count).collect()
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
