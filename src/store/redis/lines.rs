//! What goes to Redis in company. Those that come while a step of their partition is under way share the
//! next one, which costs a fraction of a step for each; one that comes alone does not wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::keys::Partition;
use super::link::RESPONSE_WAIT_MAX;
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
    /// Nobody waits for it any longer than this.
    until: Instant,
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

    /// Waits until then at the longest, the wait for others included. What has not been asked by then never is;
    /// before, it is asked even if its caller has gone away.
    pub async fn take(
        &self,
        steps: &Steps,
        (partition, root): (Partition, &str),
        one: T,
        until: Instant,
    ) -> Result<T::Answer, StoreError> {
        let line = self.0.get(partition.index()).ok_or_else(given_up)?;
        let (waiting, told) = Waiting::new(one, until);
        queue(line, steps, root, [waiting]);
        answer(told, until).await
    }

    /// The same for many, which keep their order and come behind each other. They wait as long as a step does.
    pub async fn take_all(
        &self,
        steps: &Steps,
        (partition, root): (Partition, &str),
        all: Vec<T>,
    ) -> Vec<Result<T::Answer, StoreError>> {
        let Some(line) = self.0.get(partition.index()) else {
            return all.iter().map(|_| Err(given_up())).collect();
        };
        let deadline = Instant::now() + RESPONSE_WAIT_MAX;
        let waiting = |one| Waiting::new(one, deadline);
        let (waiting, told): (Vec<_>, Vec<_>) = all.into_iter().map(waiting).unzip();
        queue(line, steps, root, waiting);
        let mut answers = Vec::with_capacity(told.len());
        for told in told {
            answers.push(answer(told, deadline).await);
        }
        answers
    }
}

impl<T: Together> Waiting<T> {
    fn new(one: T, until: Instant) -> (Self, Told<T>) {
        let (answer, told) = oneshot::channel();
        (Waiting { one, until, answer }, told)
    }
}

fn given_up() -> StoreError {
    unavailable("a step was given up, outcome unknown")
}

async fn answer<T: Send>(
    told: oneshot::Receiver<Result<T, StoreError>>,
    deadline: Instant,
) -> Result<T, StoreError> {
    match timeout_at(deadline, told).await {
        Ok(told) => told.unwrap_or_else(|_| Err(given_up())),
        Err(_) => Err(unavailable("no answer in time, outcome unknown")),
    }
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
    let _served = Served(&line);
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

/// If a step should die, the next one that comes is served.
struct Served<'a, T: Together>(&'a Mutex<Line<T>>);

impl<T: Together> Drop for Served<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(self.0).is_served = false;
        }
    }
}

impl<T: Together> Line<T> {
    /// The oldest that fit into one step; with none, nobody serves the line any more.
    fn next(
        &mut self,
    ) -> impl Iterator<Item = (T, oneshot::Sender<Result<T::Answer, StoreError>>)> {
        let now = Instant::now();
        self.waiting.retain(|waiting| now < waiting.until);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use redis::aio::PubSub;
    use redis::{Cmd, RedisResult, Value};
    use tokio::time::sleep;

    use super::super::link::Commands;
    use super::super::marks::Marks;
    use super::super::server::Server;
    use super::*;

    /// Nothing is asked of it.
    struct Nobody;

    #[async_trait]
    impl Commands for Nobody {
        async fn run(&self, _: &Cmd) -> RedisResult<(Value, Server)> {
            std::future::pending().await
        }
        async fn on_every_primary(&self, _: &Cmd) -> RedisResult<Vec<Value>> {
            std::future::pending().await
        }
        async fn run_together(&self, _: &str, _: &[Cmd]) -> RedisResult<(Vec<Value>, Server)> {
            std::future::pending().await
        }
        fn is_one_server(&self) -> bool {
            true
        }
        async fn subscribe(&self, _: &str) -> RedisResult<PubSub> {
            std::future::pending().await
        }
    }

    /// Each step of it takes long, and carries one.
    struct Slow;

    const TAKES: Duration = Duration::from_millis(1_500);
    static STEPS: AtomicUsize = AtomicUsize::new(0);

    impl Together for Slow {
        type Answer = ();
        const BATCH_MAX: usize = 1;

        fn bytes(&self) -> usize {
            1
        }

        async fn step(_: &Steps, _: &str, all: &[Self]) -> Result<Vec<()>, StoreError> {
            STEPS.fetch_add(1, Ordering::Relaxed);
            sleep(TAKES).await;
            Ok(all.iter().map(|_| ()).collect())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_others_is_part_of_the_wait() {
        let link: Arc<dyn Commands> = Arc::new(Nobody);
        let steps = Steps::new(link.clone(), link, Arc::new(Marks::nobodys()));
        let lines = Lines::new(1);
        let place = (Partition::at(0), "root");
        let began = Instant::now();
        let until = began + RESPONSE_WAIT_MAX;
        let waits = (0..4).map(|_| lines.take(&steps, place, Slow, until));
        let answers = futures_util::future::join_all(waits).await;
        assert_eq!(began.elapsed(), RESPONSE_WAIT_MAX);
        assert_eq!(answers[0], Ok(()));
        for late in &answers[1..] {
            assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
        }
        // The second step was under way; what nobody waited for any more was not asked.
        sleep(TAKES * 4).await;
        assert_eq!(STEPS.load(Ordering::Relaxed), 2);
    }
}
