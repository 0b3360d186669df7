//! What goes to Redis in company. Those that come while a step of their partition is under way share the
//! next one, which costs a fraction of a step for each; one that comes alone does not wait. A crowd does not wait for
//! the step before it either, so that Redis finds the next one when it has ended one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::keys::Partition;
use super::link::RESPONSE_WAIT_MAX;
use super::step::{Steps, unavailable};
use crate::store::StoreError;

/// What one step asks of Redis at most, about.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// So many make a step of their own beside the one that is under way.
const CROWD: usize = 16;
/// Steps under way at a time.
const STEPS_MAX: usize = 2;

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
    /// Those that take what waits, one step after the other.
    servers: usize,
    /// Whether some that keep their order are under way: those behind them come after them.
    order_is_under_way: bool,
}

struct Waiting<T: Together> {
    one: T,
    keeps_order: bool,
    /// Nobody waits for it any longer than this.
    until: Instant,
    answer: oneshot::Sender<Result<T::Answer, StoreError>>,
}

type Told<T> = oneshot::Receiver<Result<<T as Together>::Answer, StoreError>>;

impl<T: Together> Lines<T> {
    pub fn new(partitions: usize) -> Self {
        let line = || Line {
            waiting: Vec::new(),
            servers: 0,
            order_is_under_way: false,
        };
        Lines(
            (0..partitions)
                .map(|_| Arc::new(Mutex::new(line())))
                .collect(),
        )
    }

    /// Waits until then at the longest, the wait for others included. What has not been asked by then never is;
    /// before, it is asked even if its caller has gone away, unless the store is closed.
    pub async fn take(
        &self,
        steps: &Steps,
        (partition, root): (Partition, &str),
        one: T,
        until: Instant,
    ) -> Result<T::Answer, StoreError> {
        let line = self.0.get(partition.index()).ok_or_else(given_up)?;
        let (waiting, told) = Waiting::new(one, false, until);
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
        let waiting = |one| Waiting::new(one, true, deadline);
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
    fn new(one: T, keeps_order: bool, until: Instant) -> (Self, Told<T>) {
        let (answer, told) = oneshot::channel();
        let waiting = Waiting {
            one,
            keeps_order,
            until,
            answer,
        };
        (waiting, told)
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
    let is_wanted = {
        let mut line = lock(line);
        line.waiting.extend(waiting);
        line.takes_a_server()
    };
    if is_wanted {
        // By a task of its own: whoever came first may be dropped, and the others wait on.
        tokio::spawn(serve(line.clone(), steps.clone(), root.to_owned()));
    }
}

/// Takes steps while there is something for one.
async fn serve<T: Together>(line: Arc<Mutex<Line<T>>>, steps: Steps, root: String) {
    let mut serving = Serving {
        line: &line,
        keeps_order: false,
        is_over: false,
    };
    while let Some(all) = serving.next() {
        let (all, tellers): (Vec<_>, Vec<_>) = all.into_iter().unzip();
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

struct Serving<'a, T: Together> {
    line: &'a Mutex<Line<T>>,
    /// Whether some of its step keep their order.
    keeps_order: bool,
    /// Whether the line knows that nobody serves it here any more.
    is_over: bool,
}

type Taken<T> = Vec<(
    T,
    oneshot::Sender<Result<<T as Together>::Answer, StoreError>>,
)>;

impl<T: Together> Serving<'_, T> {
    /// What the next step takes; none when it is for others to take.
    fn next(&mut self) -> Option<Taken<T>> {
        let mut line = lock(self.line);
        self.ended(&mut line);
        let count = line.count_of_next();
        if count == 0 {
            // At once: what comes after this look asks for a server of its own.
            self.is_over = true;
            line.servers -= 1;
            return None;
        }
        let taken = line.waiting.drain(..count);
        self.keeps_order = taken.as_slice().iter().any(|one| one.keeps_order);
        let taken = taken.map(|waiting| (waiting.one, waiting.answer)).collect();
        line.order_is_under_way |= self.keeps_order;
        Some(taken)
    }

    fn ended(&mut self, line: &mut Line<T>) {
        line.order_is_under_way &= !self.keeps_order;
        self.keeps_order = false;
    }
}

/// If a step should die, the next one that comes is served.
impl<T: Together> Drop for Serving<'_, T> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut line = lock(self.line);
        self.ended(&mut line);
        line.servers -= 1;
    }
}

impl<T: Together> Line<T> {
    fn takes_a_server(&mut self) -> bool {
        let is_wanted = match self.servers {
            0 => true,
            1..STEPS_MAX => self.waiting.len() >= CROWD && !self.is_held_up(),
            _ => false,
        };
        self.servers += usize::from(is_wanted);
        is_wanted
    }

    /// Whether the oldest waits for the order of those under way.
    fn is_held_up(&self) -> bool {
        let oldest = self.waiting.first();
        self.order_is_under_way && oldest.is_some_and(|oldest| oldest.keeps_order)
    }

    /// How many of the oldest one of the servers takes now.
    fn count_of_next(&mut self) -> usize {
        let now = Instant::now();
        self.waiting.retain(|waiting| now < waiting.until);
        if self.servers > 1 && self.waiting.len() < CROWD {
            return 0;
        }
        let mut bytes = 0;
        let fits = |waiting: &&Waiting<T>| {
            let before = bytes;
            bytes += waiting.one.bytes();
            before < BATCH_BYTES_MAX && !(waiting.keeps_order && self.order_is_under_way)
        };
        let oldest = self.waiting.iter().take(T::BATCH_MAX);
        oldest.take_while(fits).count()
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

    /// Notes which steps are under way together.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<(usize, usize, Vec<usize>)>>);

    struct Numbered(usize, Seen);

    impl Together for Numbered {
        type Answer = usize;
        const BATCH_MAX: usize = 16;

        fn bytes(&self) -> usize {
            1
        }

        async fn step(_: &Steps, _: &str, all: &[Self]) -> Result<Vec<usize>, StoreError> {
            let Seen(seen) = &all[0].1;
            {
                let (under_way, most, order) = &mut *seen.lock().unwrap();
                *under_way += 1;
                *most = (*most).max(*under_way);
                order.extend(all.iter().map(|one| one.0));
            }
            sleep(Duration::from_millis(100)).await;
            seen.lock().unwrap().0 -= 1;
            Ok(all.iter().map(|one| one.0).collect())
        }
    }

    fn numbered(count: usize) -> (Steps, Lines<Numbered>, Seen, Vec<Numbered>) {
        let link: Arc<dyn Commands> = Arc::new(Nobody);
        let steps = Steps::new(link.clone(), link, Arc::new(Marks::nobodys()));
        let seen = Seen::default();
        let all = (0..count).map(|n| Numbered(n, seen.clone())).collect();
        (steps, Lines::new(1), seen, all)
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_does_not_wait_for_the_step_before_it() {
        for (count, at_a_time) in [(1, 1), (CROWD, 1), (CROWD + 1, 2), (CROWD * 9, 2)] {
            let (steps, lines, seen, all) = numbered(count);
            let until = Instant::now() + RESPONSE_WAIT_MAX;
            let place = (Partition::at(0), "root");
            let waits = all.into_iter().map(async |one| {
                // The first is under way before the others come.
                if one.0 > 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                lines.take(&steps, place, one, until).await
            });
            let answers = futures_util::future::join_all(waits).await;
            let expected: Vec<_> = (0..count).map(Ok).collect();
            assert_eq!(answers, expected);
            assert_eq!(seen.0.lock().unwrap().1, at_a_time, "{count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_keep_their_order_do_not_overtake_each_other() {
        let (steps, lines, seen, all) = numbered(100);
        let place = (Partition::at(0), "root");
        let answers = lines.take_all(&steps, place, all).await;
        assert_eq!(answers, (0..100).map(Ok).collect::<Vec<_>>());
        let (_, most, order) = &*seen.0.lock().unwrap();
        assert_eq!((*most, order.len()), (1, 100));
        assert!(order.is_sorted());
    }
}
