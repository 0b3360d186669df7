//! A real Redis server: one for this process, gone with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::deadline::PATIENCE;

/// Without persistence: what the tests of the port look at survives no crash of Redis.
pub struct RedisServer {
    pub port: u16,
    /// Ends the server when this process ends, however it does.
    _keeper: Child,
    _folder: TempDir,
}

/// The server that all tests of this process share. Each uses a prefix of its own.
pub fn shared() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(|| RedisServer::start(&[]))
}

/// As [`shared`], with every write fsynced before its answer.
pub fn durable() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    SERVER.get_or_init(|| RedisServer::start(&settings))
}

/// A prefix that no other test has.
pub fn prefix() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

impl RedisServer {
    /// Starts a server with these settings besides the usual ones.
    pub fn start(settings: &[&str]) -> Self {
        loop {
            if let Some(server) = Self::try_start(settings) {
                return server;
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `None` when another process took the port.
    fn try_start(settings: &[&str]) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut keeper = Command::new("sh")
            .args([
                "-c",
                "folder=$1; shift; \"$@\" >\"$folder/log\" 2>&1 & read _; kill $!; wait $!; rm -rf \"$folder\"",
                "keeper",
            ])
            .arg(folder.path())
            .args(["redis-server", "--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(settings)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !answers(port) {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            if log.contains("Address already in use") {
                drop(keeper.stdin.take());
                let _ = keeper.wait();
                return None;
            }
            assert!(
                Instant::now() < deadline,
                "redis-server does not start: {log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(RedisServer {
            port,
            _keeper: keeper,
            _folder: folder,
        })
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut answer = [0; 5];
    connection.write_all(b"PING\r\n").is_ok()
        && connection.read_exact(&mut answer).is_ok()
        && answer == *b"+PONG"
}
