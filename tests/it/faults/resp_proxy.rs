//! Stands between a replica and Redis, understands what they say, and meddles: a script is carried out and
//! its reply lost, or carried out twice; replies come late, or half; connections break.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::resp::{is_command, value_length};
use super::seed::Seed;

pub struct RespProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    redis: SocketAddr,
    seed: Seed,
    chances: Chances,
    connections: AtomicUsize,
    done: [AtomicU64; Meddling::ALL.len()],
}

/// Of 1,000 scripts, how many suffer what.
#[derive(Clone, Copy, Debug)]
pub struct Chances(pub [u64; Meddling::ALL.len()]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// Carried out; instead of the reply, the connection breaks.
    LoseReply,
    /// Carried out twice; the first reply is passed on.
    TwiceFirst,
    /// Carried out twice; the second reply is passed on.
    TwiceSecond,
    /// Half of the reply, and then nothing.
    CutReply,
    /// Never carried out: the connection breaks before.
    Reset,
    /// The reply, and all behind it, come late.
    Delay,
}

impl Meddling {
    pub const ALL: [Meddling; 6] = [
        Meddling::LoseReply,
        Meddling::TwiceFirst,
        Meddling::TwiceSecond,
        Meddling::CutReply,
        Meddling::Reset,
        Meddling::Delay,
    ];
}

/// What is to be done with the next reply.
enum Expected {
    Pass,
    Swallow,
    Break,
    Half,
    Late(Duration),
}

impl RespProxy {
    pub async fn start(redis: SocketAddr, chances: Chances, seed: Seed) -> RespProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            redis,
            seed,
            chances,
            connections: AtomicUsize::new(0),
            done: Default::default(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        RespProxy {
            address,
            shared,
            accepting,
        }
    }

    /// How often it has meddled, and how.
    pub fn done(&self) -> Vec<(Meddling, u64)> {
        let done = self.shared.done.iter();
        let done = done.map(|count| count.load(Ordering::Relaxed));
        Meddling::ALL.into_iter().zip(done).collect()
    }
}

impl Drop for RespProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // Both ends see that it broke.
            let _ = carry(stream, &shared).await;
        });
    }
}

async fn carry(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let redis = TcpStream::connect(shared.redis).await?;
    client.set_nodelay(true)?;
    redis.set_nodelay(true)?;
    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
    let choices = shared.seed.choices("proxy", number);
    let (from_client, to_client) = client.into_split();
    let (from_redis, to_redis) = redis.into_split();
    let (expect, expected) = mpsc::unbounded_channel();
    let commands = Commands {
        shared,
        choices,
        to_redis,
        expect,
    };
    // The first that ends drops both connections.
    tokio::select! {
        ended = commands.pass_on(from_client) => ended,
        ended = pass_replies_on(from_redis, to_client, expected) => ended,
    }
}

struct Commands<'a> {
    shared: &'a Shared,
    choices: fastrand::Rng,
    to_redis: OwnedWriteHalf,
    expect: mpsc::UnboundedSender<Expected>,
}

impl Commands<'_> {
    async fn pass_on(mut self, mut from_client: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            while let Some(length) = value_length(&buffer) {
                let command: Vec<u8> = buffer.drain(..length).collect();
                self.command(&command).await?;
            }
            read_more(&mut from_client, &mut buffer).await?;
        }
    }

    async fn command(&mut self, command: &[u8]) -> io::Result<()> {
        let meddling = match is_command(command, "EVALSHA") {
            true => self.choose(),
            false => None,
        };
        if let Some(meddling) = meddling {
            self.shared.done[meddling as usize].fetch_add(1, Ordering::Relaxed);
        }
        let expected = match meddling {
            None => vec![Expected::Pass],
            Some(Meddling::LoseReply) => vec![Expected::Break],
            Some(Meddling::TwiceFirst) => vec![Expected::Pass, Expected::Swallow],
            Some(Meddling::TwiceSecond) => vec![Expected::Swallow, Expected::Pass],
            Some(Meddling::CutReply) => vec![Expected::Half],
            Some(Meddling::Delay) => {
                vec![Expected::Late(Duration::from_millis(
                    self.choices.u64(1..40),
                ))]
            }
            Some(Meddling::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        for expected in expected {
            let _ = self.expect.send(expected);
            self.to_redis.write_all(command).await?;
        }
        Ok(())
    }

    fn choose(&mut self) -> Option<Meddling> {
        let mut drawn = self.choices.u64(..1_000);
        for (meddling, chance) in Meddling::ALL.into_iter().zip(self.shared.chances.0) {
            if drawn < chance {
                return Some(meddling);
            }
            drawn -= chance;
        }
        None
    }
}

async fn pass_replies_on(
    mut from_redis: OwnedReadHalf,
    mut to_client: OwnedWriteHalf,
    mut expected: mpsc::UnboundedReceiver<Expected>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        while let Some(length) = value_length(&buffer) {
            let reply: Vec<u8> = buffer.drain(..length).collect();
            // News of a subscription answers nothing.
            let expected = match reply.first() {
                Some(b'>') => Expected::Pass,
                _ => expected.try_recv().unwrap_or(Expected::Pass),
            };
            match expected {
                Expected::Pass => to_client.write_all(&reply).await?,
                Expected::Swallow => {}
                Expected::Break => return Err(io::ErrorKind::ConnectionReset.into()),
                Expected::Half => {
                    to_client.write_all(&reply[..reply.len() / 2]).await?;
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Expected::Late(late) => {
                    sleep(late).await;
                    to_client.write_all(&reply).await?;
                }
            }
        }
        read_more(&mut from_redis, &mut buffer).await?;
    }
}

async fn read_more(stream: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
