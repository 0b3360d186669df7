//! The connection of one replica: what is sent on it arrives late, or never, or its answer is lost.

use std::future::pending;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::PubSub;
use redis::{Arg, Cmd, RedisResult, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::data::word;
use super::world::Shared;
use crate::store::redis::link::Commands;
use crate::store::redis::server::Server;

/// As the product's own connections.
const SILENCE_MAX: Duration = Duration::from_millis(1800);

pub struct Wire {
    world: Shared,
    replica: usize,
    /// When the newest command arrives: what follows on the connection comes behind it.
    newest: Mutex<Instant>,
    /// The process has ended: nothing more is sent.
    pub is_dead: AtomicBool,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    NeverArrives,
    /// The connection ends behind its execution.
    ReplyLost,
    /// Nothing comes back, not even an end.
    Silent,
    /// The connection ends, and what it had carried is executed long after.
    Late,
    /// Carried out once more, later.
    Twice,
}

impl Wire {
    pub fn new(world: Shared, replica: usize) -> Self {
        Wire {
            world,
            replica,
            newest: Mutex::new(Instant::now()),
            is_dead: AtomicBool::new(false),
        }
    }

    fn fate(&self, cmds: &[Vec<Vec<u8>>]) -> Fate {
        let mut world = self.world.lock();
        if world.is_calm {
            return Fate::Answered;
        }
        match world.rng.u8(..100) {
            0..2 => Fate::Refused,
            2..4 => Fate::NeverArrives,
            4..8 => Fate::ReplyLost,
            8..9 => Fate::Silent,
            9..12 => Fate::Late,
            // `forget` is the one step that nobody repeats.
            12..14 if !cmds.iter().any(|args| is_forget(args)) => Fate::Twice,
            _ => Fate::Answered,
        }
    }

    fn delay(&self) -> Duration {
        match self.world.pick(20) {
            0 => self.world.some_ms(20..400),
            _ => self.world.some_ms(1..4),
        }
    }

    async fn carry(&self, cmds: Vec<Vec<Vec<u8>>>) -> RedisResult<(Vec<Value>, Server)> {
        if self.is_dead.load(Ordering::Relaxed) {
            return pending().await;
        }
        let (server, boot, up_at) = {
            let world = self.world.lock();
            let at = world.homes[self.replica];
            (at, world.servers[at].boot, world.servers[at].up_at)
        };
        let fate = self.fate(&cmds);
        if fate == Fate::Refused || up_at > Instant::now() {
            sleep(Duration::from_millis(1)).await;
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        if fate == Fate::NeverArrives {
            sleep(self.delay()).await;
            return Err(cut());
        }
        let arrives = {
            let mut newest = self.newest.lock().unwrap();
            let at = Instant::now() + Duration::from_millis(1);
            *newest = (*newest + Duration::from_millis(1)).max(at);
            *newest
        };
        let slow = self.delay();
        let arrives = match fate {
            Fate::Late => arrives + self.world.some_ms(10..6_000),
            _ => {
                *self.newest.lock().unwrap() = arrives + slow;
                arrives + slow
            }
        };
        let request = Request {
            world: self.world.clone(),
            replica: self.replica,
            server,
            boot,
            cmds,
        };
        let answer = request.clone().arrive_at(arrives);
        if fate == Fate::Twice {
            drop(request.arrive_at(arrives + self.world.some_ms(1..3_000)));
        }
        match fate {
            Fate::Late => {
                sleep(self.delay()).await;
                Err(cut())
            }
            Fate::Silent => {
                sleep(SILENCE_MAX).await;
                Err(io::Error::from(io::ErrorKind::TimedOut).into())
            }
            _ => {
                let answer = match timeout(SILENCE_MAX, answer).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) => return Err(cut()),
                    Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                };
                if fate == Fate::ReplyLost {
                    return Err(cut());
                }
                sleep(self.delay()).await;
                Ok((answer?, Server::named(&format!("{server} {boot}"))))
            }
        }
    }
}

#[derive(Clone)]
struct Request {
    world: Shared,
    replica: usize,
    server: usize,
    boot: u64,
    cmds: Vec<Vec<Vec<u8>>>,
}

impl Request {
    fn arrive_at(self, arrives: Instant) -> oneshot::Receiver<RedisResult<Vec<Value>>> {
        let (answer, told) = oneshot::channel();
        tokio::spawn(async move {
            sleep_until(arrives).await;
            // A server that is frozen takes in order what has come meanwhile.
            let frozen = self.world.lock().servers[self.server].frozen;
            if let Some((from, until)) = frozen
                && until > Instant::now()
                && arrives >= from
            {
                sleep_until(until + (arrives - from) / 64).await;
            }
            let mut world = self.world.lock();
            if world.servers[self.server].boot != self.boot {
                return;
            }
            let cmds = self.cmds.iter();
            let answers = cmds.map(|args| world.execute(self.server, self.replica, args));
            let answers = answers.collect();
            drop(world);
            let _ = answer.send(answers);
        });
        told
    }
}

#[async_trait]
impl Commands for Wire {
    async fn run(&self, cmd: &Cmd) -> RedisResult<(Value, Server)> {
        let (mut answers, server) = self.carry(vec![args(cmd)]).await?;
        Ok((answers.pop().unwrap(), server))
    }

    async fn on_every_primary(&self, _: &Cmd) -> RedisResult<Vec<Value>> {
        Err(cut())
    }

    /// Those behind it wait, as for a copy that is slow.
    async fn run_together(&self, _: &str, cmds: &[Cmd]) -> RedisResult<(Vec<Value>, Server)> {
        if self.world.chance(10) && !self.world.lock().is_calm {
            sleep(self.world.some_ms(100..1_000)).await;
        }
        self.carry(cmds.iter().map(args).collect()).await
    }

    fn is_one_server(&self) -> bool {
        true
    }

    async fn subscribe(&self, _: &str) -> RedisResult<PubSub> {
        Err(cut())
    }
}

fn args(cmd: &Cmd) -> Vec<Vec<u8>> {
    let args = cmd.args_iter();
    args.map(|arg| match arg {
        Arg::Simple(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    })
    .collect()
}

fn is_forget(args: &[Vec<u8>]) -> bool {
    let sha1 = args.get(1).map(|sha1| word(sha1)).unwrap_or_default();
    sha1 == crate::store::redis::scripts::FORGET.sha1
}

fn cut() -> redis::RedisError {
    io::Error::from(io::ErrorKind::BrokenPipe).into()
}
