//! A Redis server that keeps its folder and its port when it is killed and started again.

use std::net::SocketAddr;
use std::time::Duration;

use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult};
use tempfile::TempDir;
use tokio::process::Command;

use super::ports;
use super::process::Process;
use crate::support::deadline::until;

pub struct RedisNode {
    pub process: Process,
    pub port: u16,
    _folder: TempDir,
}

/// Longer than any fault lasts.
const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(20);

impl RedisNode {
    /// With every write fsynced before its answer.
    pub fn start(name: String, settings: &[&str]) -> RedisNode {
        let folder = TempDir::new().unwrap();
        let port = ports::free();
        let path = folder.path().to_owned();
        let settings: Vec<_> = settings.iter().map(|&s| s.to_owned()).collect();
        let process = Process::start(name, folder.path().join("log"), move || {
            let mut command = Command::new("redis-server");
            command
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args([
                    "--save",
                    "",
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                ])
                .args([
                    "--enable-debug-command",
                    "yes",
                    "--busy-reply-threshold",
                    "100",
                ])
                .arg("--dir")
                .arg(&path)
                .args(&settings);
            command
        });
        RedisNode {
            process,
            port,
            _folder: folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Carries out one command on a connection of its own.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(RESPONSE_WAIT_MAX));
        let client = redis::Client::open(self.url())?;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }

    /// Until it answers and has loaded its data.
    pub async fn is_up(&self) {
        let what = format!("{} to be up", self.process.name);
        until(&what, async || {
            self.command::<String>(&["PING"]).await.ok().map(drop)
        })
        .await;
    }
}
