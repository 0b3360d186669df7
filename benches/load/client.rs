//! A load client that costs little: fixed bytes out, the least parsing in. It runs as a process of its own, on one
//! thread, so that its time is not counted with the server's.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::requests::{COUNTER, USER, unique_waiting};

#[derive(Serialize, Deserialize)]
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    pub seconds: f64,
    /// One request; where it holds [`COUNTER`], each connection counts on, and where it holds [`USER`], through the users.
    pub request: Vec<u8>,
    /// The status that is counted as an answer.
    pub expected: u16,
    /// Ends after so many answers, if they come sooner; shared by the connections.
    pub answers_max: u64,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Outcome {
    pub answers: u64,
    pub unexpected: u64,
    pub seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Starts the client process and waits for what it saw.
pub fn run_in_process(load: &Load) -> Outcome {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .arg("load-client")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the load client");
    let text = serde_json::to_vec(load).expect("a load");
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(&text)
        .expect("the load is told");
    let output = child.wait_with_output().expect("its outcome");
    serde_json::from_slice(&output.stdout).expect("its outcome")
}

#[tokio::main(flavor = "current_thread")]
pub async fn run_from_stdin() {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).expect("the load");
    let load: Load = serde_json::from_slice(&text).expect("the load");
    let outcome = drive(&load).await;
    println!("{}", serde_json::to_string(&outcome).expect("an outcome"));
}

async fn drive(load: &Load) -> Outcome {
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Connection::open(load.address).await);
    }
    // Counting begins at the clock, which runs faster than any counter here: no two runs repeat a number.
    let clock = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let clock = u64::try_from(clock.as_micros()).unwrap_or_default() & ((1 << 52) - 1);
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(load.seconds);
    let share = load.answers_max.div_ceil(load.connections as u64);
    let drivers = connections
        .into_iter()
        .enumerate()
        .map(|(index, connection)| {
            let numbers = clock | (index as u64) << 52;
            connection.repeat(load, numbers, until, share)
        });
    let all = futures_util::future::join_all(drivers).await;
    let seconds = began.elapsed().as_secs_f64();
    let mut outcome = Outcome {
        seconds,
        ..Outcome::default()
    };
    let mut micros = Vec::new();
    for one in all {
        outcome.answers += one.micros.len() as u64;
        outcome.unexpected += one.unexpected;
        micros.extend(one.micros);
    }
    micros.sort_unstable();
    let at = |share: f64| {
        let index = (micros.len().saturating_sub(1) as f64 * share) as usize;
        micros
            .get(index)
            .map_or(0.0, |&micros| f64::from(micros) / 1e3)
    };
    (outcome.p50_ms, outcome.p99_ms) = (at(0.5), at(0.99));
    outcome
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    micros: Vec<u32>,
    unexpected: u64,
}

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Connection {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        }
    }

    /// Until then, or until it has had so many answers.
    async fn repeat(mut self, load: &Load, numbers: u64, until: Instant, answers: u64) -> Seen {
        let mut request = load.request.clone();
        let counters = counters(&request);
        let user = find(&request, USER.as_bytes()).map(|at| at + USER.len());
        let mut seen = Seen::default();
        for number in numbers.. {
            let began = Instant::now();
            if began >= until || seen.micros.len() as u64 >= answers {
                break;
            }
            for &at in &counters {
                write_hexadecimal(&mut request[at..at + COUNTER.len()], number);
            }
            if let Some(end) = user {
                write_thousandth(&mut request[end - 3..end], number);
            }
            let Some((status, _)) = self.exchange(&request).await else {
                seen.unexpected += 1;
                break;
            };
            if status == load.expected {
                seen.micros
                    .push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
            } else {
                seen.unexpected += 1;
            }
        }
        seen
    }

    /// Sends a request and reads its answer: status and body.
    pub async fn exchange(&mut self, request: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.stream.write_all(request).await.ok()?;
        let head = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more().await?;
        };
        let status = std::str::from_utf8(self.buffer.get(9..12)?)
            .ok()?
            .parse()
            .ok()?;
        let length = content_length(&self.buffer[..head])?;
        while self.buffer.len() < head + length {
            self.read_more().await?;
        }
        let body = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Some((status, body))
    }

    async fn read_more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.buffer).await.ok()?;
        (read > 0).then_some(())
    }
}

/// One request on a connection of its own; the body of the answer.
pub fn send_once(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    block_on(async {
        let mut connection = Connection::open(address).await;
        connection.exchange(request).await.expect("an answer").1
    })
}

/// How long each of `count` tasks took from its submission to its end, one after the other.
pub fn waits(address: SocketAddr, count: u64) -> Vec<Duration> {
    block_on(async {
        let mut connection = Connection::open(address).await;
        let mut request = unique_waiting(address);
        let counters = counters(&request);
        let mut waits = Vec::new();
        for number in 0..count {
            for &at in &counters {
                write_hexadecimal(&mut request[at..at + COUNTER.len()], number);
            }
            let began = Instant::now();
            let (status, _) = connection.exchange(&request).await.expect("an answer");
            assert_eq!(status, 200, "the task did not end");
            waits.push(began.elapsed());
        }
        waits
    })
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// Where the counters stand in a request.
fn counters(request: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = find(&request[from..], COUNTER.as_bytes()) {
        found.push(from + at);
        from += at + COUNTER.len();
    }
    found
}

fn write_hexadecimal(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn write_thousandth(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length: ";
    let at = find(head, NAME)? + NAME.len();
    let digits = head[at..].iter().take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}
