//! A Redis server under measurement, started for it and gone with it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection};
use tempfile::TempDir;

use crate::process::cpu_seconds;

/// What a write has reached when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Memory,
    Fsync,
}

pub struct RedisServer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Memory => "without an append-only file",
            Durability::Fsync => "appendfsync always",
        }
    }

    fn settings(self) -> &'static [&'static str] {
        match self {
            Durability::Memory => &["--appendonly", "no"],
            Durability::Fsync => &["--appendonly", "yes", "--appendfsync", "always"],
        }
    }
}

impl RedisServer {
    pub fn start(durability: Durability) -> RedisServer {
        let folder = TempDir::new().expect("a folder for the data");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--dir"])
            .arg(folder.path())
            .args(durability.settings())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server");
        let server = RedisServer {
            child,
            port,
            _folder: folder,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.try_connect().is_none() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.child)
    }

    /// Commands answered so far, those that scripts call included.
    pub fn commands(&self) -> f64 {
        self.info("stats", "total_commands_processed")
    }

    /// Bytes that are kept, connections aside. What is gone within a minute, as the notes of leases, is taken away first.
    pub fn data_bytes(&self) -> f64 {
        let mut connection = self.try_connect().expect("a connection");
        for pattern in ["*:leased:*", "*:noted:*"] {
            let found = redis::cmd("KEYS").arg(pattern).query(&mut connection);
            let passing: Vec<String> = found.expect("names of keys");
            for name in passing {
                let removed = redis::cmd("DEL").arg(name).query::<()>(&mut connection);
                removed.expect("a key removed");
            }
        }
        self.info("memory", "used_memory") - self.info("memory", "mem_clients_normal")
    }

    fn info(&self, section: &str, name: &str) -> f64 {
        let mut connection = self.try_connect().expect("a connection");
        let text: String = redis::cmd("INFO")
            .arg(section)
            .query(&mut connection)
            .expect("figures");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = value.and_then(|value| value.trim().parse().ok());
        value.expect("the figure asked for")
    }

    fn try_connect(&self) -> Option<Connection> {
        let mut connection = Client::open(self.url()).ok()?.get_connection().ok()?;
        let answer = redis::cmd("PING").query::<String>(&mut connection);
        answer.is_ok().then_some(connection)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
