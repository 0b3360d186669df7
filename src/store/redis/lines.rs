//! What goes to Redis in company. Those that come while a step of their partition is under way share the
//! next one, which costs a fraction of a step for each; one that comes alone does not wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::keys::Partition;
use super::step::{Steps, unavailable};
use crate::store::StoreError;

/// What one step asks of Redis at most, about.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// One of those that share a step.
pub trait Together: Sized + Send + Sync + 'static {
    type Answer: Send + 'static;

    /// How many one step takes.
    const BATCH_MAX: usize;

    /// What it adds to the step, about.
    fn bytes(&self) -> usize;

    /// Answers in the same order.
    fn step(
        steps: &Steps,
        root: &str,
        all: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// One for each partition.
pub struct Lines<T: Together>(Vec<Arc<Mutex<Line<T>>>>);

struct Line<T: Together> {
    waiting: Vec<Waiting<T>>,
    /// Whether somebody takes what waits.
    is_served: bool,
}

struct Waiting<T: Together> {
    one: T,
    answer: oneshot::Sender<Result<T::Answer, StoreError>>,
}

type Told<T> = oneshot::Receiver<Result<<T as Together>::Answer, StoreError>>;

impl<T: Together> Lines<T> {
    pub fn new(partitions: usize) -> Self {
        let line = || Line {
            waiting: Vec::new(),
            is_served: false,
        };
        Lines(
            (0..partitions)
                .map(|_| Arc::new(Mutex::new(line())))
                .collect(),
        )
    }

    /// Goes on if the caller goes away.
    pub async fn take(
        &self,
        steps: &Steps,
        (partition, root): (Partition, &str),
        one: T,
    ) -> Result<T::Answer, StoreError> {
        let line = self.0.get(partition.index()).ok_or_else(given_up)?;
        let (waiting, told) = Waiting::new(one);
        queue(line, steps, root, [waiting]);
        told.await.unwrap_or_else(|_| Err(given_up()))
    }

    /// The same for many, which keep their order and come behind each other.
    pub async fn take_all(
        &self,
        steps: &Steps,
        (partition, root): (Partition, &str),
        all: Vec<T>,
    ) -> Vec<Result<T::Answer, StoreError>> {
        let Some(line) = self.0.get(partition.index()) else {
            return all.iter().map(|_| Err(given_up())).collect();
        };
        let (waiting, told): (Vec<_>, Vec<_>) = all.into_iter().map(Waiting::new).unzip();
        queue(line, steps, root, waiting);
        let mut answers = Vec::with_capacity(told.len());
        for told in told {
            answers.push(told.await.unwrap_or_else(|_| Err(given_up())));
        }
        answers
    }
}

impl<T: Together> Waiting<T> {
    fn new(one: T) -> (Self, Told<T>) {
        let (answer, told) = oneshot::channel();
        (Waiting { one, answer }, told)
    }
}

fn given_up() -> StoreError {
    unavailable("a step was given up, outcome unknown")
}

fn queue<T: Together>(
    line: &Arc<Mutex<Line<T>>>,
    steps: &Steps,
    root: &str,
    waiting: impl IntoIterator<Item = Waiting<T>>,
) {
    let is_served = {
        let mut line = lock(line);
        line.waiting.extend(waiting);
        std::mem::replace(&mut line.is_served, true)
    };
    if !is_served {
        // By a task of its own: whoever came first may be dropped, and the others wait on.
        tokio::spawn(serve(line.clone(), steps.clone(), root.to_owned()));
    }
}

/// Takes steps until nothing waits.
async fn serve<T: Together>(line: Arc<Mutex<Line<T>>>, steps: Steps, root: String) {
    loop {
        let (all, tellers): (Vec<_>, Vec<_>) = lock(&line).next().unzip();
        if all.is_empty() {
            return;
        }
        match T::step(&steps, &root, &all).await {
            Ok(answers) => {
                for (teller, answer) in tellers.into_iter().zip(answers) {
                    let _ = teller.send(Ok(answer));
                }
            }
            Err(error) => {
                for teller in tellers {
                    let _ = teller.send(Err(error.clone()));
                }
            }
        }
    }
}

impl<T: Together> Line<T> {
    /// The oldest that fit into one step; with none, nobody serves the line any more.
    fn next(
        &mut self,
    ) -> impl Iterator<Item = (T, oneshot::Sender<Result<T::Answer, StoreError>>)> {
        let mut bytes = 0;
        let fits = |waiting: &&Waiting<T>| {
            let before = bytes;
            bytes += waiting.one.bytes();
            before < BATCH_BYTES_MAX
        };
        let oldest = self.waiting.iter().take(T::BATCH_MAX);
        let count = oldest.take_while(fits).count();
        self.is_served = count > 0;
        self.waiting
            .drain(..count)
            .map(|waiting| (waiting.one, waiting.answer))
    }
}

fn lock<T: Together>(line: &Mutex<Line<T>>) -> MutexGuard<'_, Line<T>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
