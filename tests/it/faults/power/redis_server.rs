//! A Redis whose writes and syncs are logged, or that starts from what a power cut has left.

use std::path::Path;
use std::process::Stdio;

use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

use super::shim::Shim;
use crate::faults::ports;
use crate::support::Setup;
use crate::support::deadline::{until, within};

/// Small results inline only. Short leases: ends that cannot be recorded are given up soon.
const CONFIG: &str =
    "[limits]\nresult_inline_bytes_max = 200\n[task_types.echo]\nlease_seconds = 1\n";

/// Where a Redis listens, however often it is started anew, and when it syncs what it appends.
pub struct RedisAt {
    pub port: u16,
    /// `always` or `everysec`.
    sync: &'static str,
    said: NamedTempFile,
}

impl RedisAt {
    pub fn free_port(sync: &'static str) -> RedisAt {
        RedisAt {
            port: ports::free(),
            sync,
            said: NamedTempFile::new().unwrap(),
        }
    }

    /// With what is in the folder, which must be readable as a whole or but for its end. Gone with its handle.
    pub async fn start(&self, folder: &Path, shim: Option<&Shim>) -> Child {
        self.said.as_file().set_len(0).unwrap();
        let mut redis = Command::new("redis-server");
        redis
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", self.sync])
            .args(["--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(folder)
            .stdout(self.said.reopen().unwrap())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(shim) = shim {
            redis.envs(shim.environment());
        }
        let mut child = redis.spawn().unwrap();
        until("Redis", async || {
            if let Some(status) = child.try_wait().unwrap() {
                let said = std::fs::read_to_string(self.said.path()).unwrap();
                panic!("redis-server ended: {status}\n{said}");
            }
            (self.command(&["PING"]).await == ["PONG"]).then_some(())
        })
        .await;
        child
    }

    /// The lines that `redis-cli` shows.
    pub async fn command(&self, words: &[&str]) -> Vec<String> {
        let mut client = Command::new("redis-cli");
        client.args(["-p", &self.port.to_string()]).args(words);
        let output = within("redis-cli", client.output()).await.unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        shown.lines().map(str::to_owned).collect()
    }

    /// A replica of the service over it.
    pub fn replica(&self) -> Setup {
        Setup::new()
            .config(CONFIG)
            .env(
                "JUSTONCE_STORE",
                &format!("redis://127.0.0.1:{}", self.port),
            )
            .env("JUSTONCE_DRAIN_GRACE_SECONDS", "1")
            .env("RUST_LOG", "warn")
    }
}
