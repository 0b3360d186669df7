//! A Redis server that keeps its folder and its port when it is killed and started again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult};
use tempfile::TempDir;
use tokio::process::Command;

use super::ports;
use super::process::Process;
use crate::support::deadline::until;

pub struct RedisNode {
    pub process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

/// Which server is to be started, and where.
pub struct Launch {
    pub name: String,
    /// A command that runs another one, such as `ip netns exec name`.
    pub within: Vec<String>,
    pub program: PathBuf,
    /// Where it is reached.
    pub host: IpAddr,
    /// Lines of its configuration besides the usual ones. What somebody tells the server to rewrite stays so.
    pub settings: String,
}

/// Every write is fsynced before its answer.
const USUAL: &str = "save \"\"\nappendonly yes\nappendfsync always\n\
                     enable-debug-command yes\nbusy-reply-threshold 100\n";

/// Longer than any fault lasts.
const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(20);

impl Launch {
    /// The usual server, reached by this machine only.
    pub fn here(name: String) -> Launch {
        Launch {
            name,
            within: Vec::new(),
            program: "redis-server".into(),
            host: Ipv4Addr::LOCALHOST.into(),
            settings: "bind 127.0.0.1\n".to_owned(),
        }
    }

    pub fn also(mut self, settings: &str) -> Launch {
        self.settings.push_str(settings);
        self
    }
}

impl RedisNode {
    pub fn start(launch: Launch) -> RedisNode {
        let folder = TempDir::new().unwrap();
        let address = SocketAddr::new(launch.host, ports::free());
        let (path, port) = (folder.path().display(), address.port());
        let own = launch.settings;
        let text = format!("{USUAL}{own}dir {path}\nport {port}\n");
        let config = folder.path().join("redis.conf");
        std::fs::write(&config, text).unwrap();
        let mut words = launch.within;
        words.push(launch.program.to_str().unwrap().to_owned());
        let process = Process::start(launch.name, folder.path().join("log"), move || {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).arg(&config);
            command
        });
        RedisNode {
            process,
            address,
            _folder: folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
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
