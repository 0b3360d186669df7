//! Streams of server-sent events, and what they cost those who submit: the same submissions without and with them, in turn.
//! The followers are a process of their own, on one thread.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::client::Load;
use crate::process::Server;
use crate::table::Table;
use crate::{Options, requests, run};

const FOLLOWERS: usize = 1_000;
const CONNECTIONS: usize = 64;
/// Each is measured without and with followers.
const ROUNDS: usize = 4;
/// Streams that are opened at a time.
const OPENED_AT_ONCE: usize = 64;

/// Whom they follow.
#[derive(Clone, Copy)]
enum Whom {
    /// Each one of those who submit in turn.
    Each,
    /// The one user who submits: all of them hear of every task.
    TheOne,
}

/// `start` starts a service: with workers, or without.
pub fn measure(options: &Options, start: impl Fn(Option<usize>) -> Server) {
    let mut table = Table::new([
        "1,000 streams of GET /v1/events",
        "submitted/s without",
        "with",
        "ratio",
        "lowest",
        "events/s",
    ]);
    for (name, whom, workers) in [
        ("each of a user of its own, tasks wait", Whom::Each, Some(0)),
        ("the same, tasks run", Whom::Each, None),
        ("all of one user, tasks run", Whom::TheOne, None),
    ] {
        let service = start(workers);
        let load = Load {
            address: service.address,
            connections: CONNECTIONS,
            seconds: options.seconds,
            request: match whom {
                Whom::Each => requests::unique_of_users(service.address),
                Whom::TheOne => requests::unique(service.address),
            },
            expected: 202,
            answers_max: u64::MAX,
        };
        let submitted = || {
            let measured = run(&service, &load);
            measured.report_unexpected(name);
            if workers.is_none() {
                crate::wait_until_done(service.address);
            }
            measured.per_second()
        };
        // The first load of a service is not like the others.
        submitted();
        let (mut without, mut with, mut events) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..ROUNDS {
            without.push(submitted());
            let followers = Followers::start(service.address, whom);
            with.push(submitted());
            events += followers.end() as f64 / options.seconds;
        }
        let ratios = with
            .iter()
            .zip(&without)
            .map(|(with, without)| with / without);
        let lowest = ratios.fold(f64::INFINITY, f64::min);
        let (without, with) = (mean(&without), mean(&with));
        table.row([
            name.to_owned(),
            format!("{without:.0}"),
            format!("{with:.0}"),
            format!("{:.2}", with / without),
            format!("{lowest:.2}"),
            format!("{:.0}", events / ROUNDS as f64),
        ]);
    }
    println!("{table}");
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The process of the followers.
struct Followers {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Followers {
    /// Returns when all streams are open.
    fn start(address: SocketAddr, whom: Whom) -> Followers {
        let whom = match whom {
            Whom::TheOne => "anonymous",
            Whom::Each => "each",
        };
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["followers", &address.to_string(), whom])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the followers");
        let stdout = child.stdout.take().expect("their output");
        let mut followers = Followers {
            child,
            lines: BufReader::new(stdout),
        };
        assert_eq!(followers.line(), "open");
        followers
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    /// How many events they got, all together.
    fn end(mut self) -> u64 {
        let mut stdin = self.child.stdin.take().expect("their input");
        stdin.write_all(b".").expect("the end is told");
        drop(stdin);
        let events = self.line().parse().expect("a number");
        let _ = self.child.wait();
        events
    }
}

/// The process: opens the streams, says so, reads until its input ends, and says how many events came.
#[tokio::main(flavor = "current_thread")]
pub async fn follow(address: &str, whom: &str) {
    let events = Arc::new(AtomicU64::new(0));
    let opening = Arc::new(Semaphore::new(OPENED_AT_ONCE));
    let (opened, mut all_opened) = tokio::sync::mpsc::channel(FOLLOWERS);
    for number in 0..FOLLOWERS {
        let user = match whom {
            "each" => format!("user-{number:03}"),
            user => user.to_owned(),
        };
        let request = format!(
            "GET /v1/events HTTP/1.1\r\nHost: {address}\r\nX-User-Id: {user}\r\nAccept: text/event-stream\r\n\r\n"
        );
        let address = address.to_owned();
        let (events, opening, opened) = (events.clone(), opening.clone(), opened.clone());
        tokio::spawn(async move {
            let turn = opening.acquire_owned().await.expect("a turn");
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut block = vec![0; 16 * 1024];
            let read = stream.read(&mut block).await.expect("an answer");
            assert!(block[..read].starts_with(b"HTTP/1.1 200"), "no stream");
            drop(turn);
            opened.send(()).await.expect("heard");
            while let Ok(read @ 1..) = stream.read(&mut block).await {
                events.fetch_add(count(&block[..read]), Ordering::Relaxed);
            }
        });
    }
    for _ in 0..FOLLOWERS {
        all_opened.recv().await.expect("a stream");
    }
    println!("open");
    let wait = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = wait.await;
    println!("{}", events.load(Ordering::Relaxed));
    std::process::exit(0);
}

/// Events that begin here; one whose name is cut by a block's end is not counted.
fn count(block: &[u8]) -> u64 {
    const NAME: &[u8] = b"event: ";
    block.windows(NAME.len()).filter(|w| *w == NAME).count() as u64
}
