//! Clients as they should be: whatever happens to a request, they send the same one again, under the same
//! key, until they know what became of it. Each has its own connection and its own order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Answer, Connection};
use super::intent::{Intent, read};
use super::ledger::{Ledger, Seen};
use super::seed::Seed;
use super::violation::Rule;
use super::work::Work;

/// What is to be sent, and by whom.
#[derive(Clone)]
pub struct Load {
    pub clients: usize,
    /// So many of the clients send each intent.
    pub submitters: usize,
    /// Intents in all; none: until the faults are over.
    pub intents: Option<usize>,
    pub work: Work,
    /// What a client waits between two submissions, on average.
    pub pause: Duration,
    /// Whether some clients go away when they do not know the outcome.
    pub quitters: bool,
    /// Who look at tasks meanwhile.
    pub observers: usize,
}

/// Where the clients send to: replicas, or what stands before them.
#[derive(Clone)]
pub struct Way {
    pub targets: Arc<[SocketAddr]>,
    pub ledger: Ledger,
    pub work: Work,
}

/// A client that has been patient for so long gives up.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
const BACKOFF: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A client takes so many intents at a time, in an order of its own.
const BLOCK: usize = 16;
/// One in so many clients that do not know the outcome goes away.
const QUITS_ONE_IN: usize = 20;

impl Load {
    /// Starts all; they end by themselves, or with the intent that they are at when `over` fires.
    pub fn start(&self, way: &Way, seed: Seed, over: &CancellationToken) -> JoinSet<()> {
        way.ledger.open();
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let client = Client {
                caller: Caller::new(way, seed.choices("client", number), number),
                load: self.clone(),
                over: over.clone(),
                group: number / self.submitters,
                groups: self.clients / self.submitters,
            };
            clients.spawn(client.run());
        }
        clients
    }

    /// Starts those who look. They go on until they are dropped.
    pub fn observe(&self, way: &Way, seed: Seed) -> JoinSet<()> {
        let mut observers = JoinSet::new();
        for number in 0..self.observers {
            let choices = seed.choices("observer", number);
            observers.spawn(observe(Caller::new(way, choices, number)));
        }
        observers
    }
}

struct Client {
    caller: Caller,
    load: Load,
    over: CancellationToken,
    group: usize,
    groups: usize,
}

impl Client {
    async fn run(mut self) {
        for block in 0.. {
            let first = block * BLOCK;
            let mut numbers: Vec<_> = (first..first + BLOCK)
                .map(|n| n * self.groups + self.group)
                .filter(|n| self.load.intents.is_none_or(|intents| *n < intents))
                .collect();
            if numbers.is_empty() {
                return;
            }
            self.caller.choices.shuffle(&mut numbers);
            for number in numbers {
                if self.over.is_cancelled() {
                    return;
                }
                let pause = self.load.pause * 2;
                if !pause.is_zero() {
                    sleep(pause.mul_f64(self.caller.choices.f64())).await;
                }
                self.submit(self.load.work.intent(number)).await;
            }
        }
    }

    /// Until the outcome is known.
    async fn submit(&mut self, intent: Intent) {
        let request = self.load.work.request(&intent);
        let ledger = self.caller.way.ledger.clone();
        ledger.sent(intent);
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = BACKOFF;
        loop {
            let began = Instant::now();
            let answer = self.caller.ask(&request).await;
            match answer {
                Some(answer) if matches!(answer.status, 200 | 202) => {
                    match serde_json::from_slice::<Seen>(&answer.body) {
                        Ok(seen) => return ledger.acknowledged(intent, began, &seen),
                        Err(_) => return ledger.refused(intent, answer.status, &answer.body),
                    }
                }
                Some(answer) if !asks_for_a_repeat(answer.status) => {
                    return ledger.refused(intent, answer.status, &answer.body);
                }
                Some(_) | None => {}
            }
            ledger.unsure(intent);
            let quits = self.load.quitters && self.caller.choices.usize(..QUITS_ONE_IN) == 0;
            if quits || Instant::now() > deadline {
                return ledger.given_up();
            }
            ledger.repeated();
            let jitter = 0.5 + self.caller.choices.f64();
            sleep(backoff.mul_f64(jitter)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

fn asks_for_a_repeat(status: u16) -> bool {
    status == 408 || status == 429 || status >= 500
}

/// One in so many requests goes to the next target though all is well: else all clients would stay with the replica that
/// has failed last.
const MOVES_ON_ONE_IN: usize = 50;

/// Asks one target after the other: on to the next after every failure.
pub struct Caller {
    pub way: Way,
    pub choices: fastrand::Rng,
    target: usize,
    connection: Option<Connection>,
    /// Requests of which nobody knows what became of them.
    pub unsure: u64,
}

impl Caller {
    pub fn new(way: &Way, choices: fastrand::Rng, target: usize) -> Caller {
        Caller {
            way: way.clone(),
            choices,
            target,
            connection: None,
            unsure: 0,
        }
    }

    /// None when there was no whole answer.
    pub async fn ask(&mut self, request: &[u8]) -> Option<Answer> {
        if self.way.targets.len() > 1 && self.choices.usize(..MOVES_ON_ONE_IN) == 0 {
            self.connection = None;
            self.target += 1;
        }
        let wait = Duration::from_millis(self.choices.u64(1_500..4_000));
        let answer = timeout(wait, self.exchange(request)).await.ok().flatten();
        let reusable = answer.as_ref().is_some_and(|answer| !answer.last);
        if !reusable {
            self.connection = None;
        }
        if answer.as_ref().is_none_or(|answer| answer.status >= 500) {
            self.connection = None;
            self.target += 1;
        }
        answer
    }

    async fn exchange(&mut self, request: &[u8]) -> Option<Answer> {
        if self.connection.is_none() {
            let address = self.way.targets[self.target % self.way.targets.len()];
            let opened = timeout(CONNECT_WAIT_MAX, Connection::open(address)).await;
            self.connection = Some(opened.ok()?.ok()?);
        }
        self.connection.as_mut()?.exchange(request).await.ok()
    }

    /// Asks until there is a definite answer; none when there is none for too long.
    pub async fn insist(&mut self, request: &[u8]) -> Option<Answer> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.ask(request).await {
                Some(answer) if !asks_for_a_repeat(answer.status) => return Some(answer),
                Some(_) | None => {
                    self.unsure += 1;
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        None
    }
}

/// Looks at one acknowledged task after the other.
async fn observe(mut caller: Caller) {
    loop {
        sleep(Duration::from_millis(caller.choices.u64(1..20))).await;
        let choice = caller.choices.usize(..);
        let Some(task) = caller.way.ledger.any_task(choice) else {
            continue;
        };
        let user = caller.way.work.user_of(task.content);
        let request = read(&user, &format!("/v1/tasks/{}", task.id));
        let began = Instant::now();
        let Some(answer) = caller.ask(&request).await else {
            continue;
        };
        let ledger = &caller.way.ledger;
        match answer.status {
            200 => match serde_json::from_slice::<Seen>(&answer.body) {
                Ok(seen) if *seen.id == *task.id => ledger.looked(task.content, began, &seen),
                _ => ledger.violated(
                    Rule::Lost,
                    format!("{} was answered with {}", task.id, text(&answer.body)),
                ),
            },
            status if asks_for_a_repeat(status) => {}
            status => ledger.violated(
                Rule::Lost,
                format!("{}: {status} {}", task.id, text(&answer.body)),
            ),
        }
    }
}

pub fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
