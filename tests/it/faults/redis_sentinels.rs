//! A Redis server, a replica of it, and three sentinels that let the replica take over.

use std::net::Ipv4Addr;
use std::path::Path;

use redis::{Client, Value};
use tempfile::TempDir;
use tokio::process::Command;

use super::ports;
use super::process::Process;
use super::redis_node::{Launch, RedisNode};
use crate::support::deadline::until;
use crate::support::redis::newer_server;

pub struct RedisSentinels {
    pub servers: Vec<RedisNode>,
    pub sentinels: Vec<Sentinel>,
}

pub struct Sentinel {
    pub process: Process,
    port: u16,
    _folder: TempDir,
}

/// With one replica, whatever is on two servers is on the one that takes over. Of several, sentinels may choose one that
/// lacks what another has.
const SERVERS: usize = 2;
const SENTINELS: usize = 3;
/// A server that was silent for so many milliseconds is taken for dead.
const SILENCE_MS: u64 = 1000;
/// For one try to put another in its place.
const FAILOVER_MS: u64 = 3000;

impl RedisSentinels {
    /// Servers that can say what their replicas have fsynced.
    pub async fn start() -> RedisSentinels {
        let program = newer_server();
        let settings = "bind 127.0.0.1\nrepl-diskless-sync-delay 0\nrepl-timeout 5\n";
        let launch = |number: usize, more: &str| Launch {
            program: program.clone(),
            settings: format!("{settings}{more}"),
            ..Launch::here(format!("server {number}"))
        };
        let primary = RedisNode::start(launch(1, ""));
        let replica_of = format!("replicaof 127.0.0.1 {}\n", primary.port());
        let replicas = (2..=SERVERS).map(|number| RedisNode::start(launch(number, &replica_of)));
        let replicas: Vec<_> = replicas.collect();
        let monitor = format!(
            "bind 127.0.0.1\n\
             sentinel monitor main 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds main {SILENCE_MS}\n\
             sentinel failover-timeout main {FAILOVER_MS}\n",
            primary.port()
        );
        let mut servers = vec![primary];
        servers.extend(replicas);
        for server in &servers {
            server.is_up().await;
        }
        let sentinels = 1..=SENTINELS;
        let sentinels = sentinels.map(|number| Sentinel::start(number, &program, &monitor));
        let set = RedisSentinels {
            servers,
            sentinels: sentinels.collect(),
        };
        for sentinel in &set.sentinels {
            // They look more often than they would.
            let often = "SENTINEL DEBUG info-period 500 publish-period 300";
            until("a sentinel", async || sentinel.command(often).await).await;
        }
        set.is_up().await;
        set
    }

    pub fn url(&self) -> String {
        let hosts = self.sentinels.iter();
        let hosts: Vec<_> = hosts.map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    /// All sentinels name the same primary, which has all others as replicas that are in step.
    pub async fn is_up(&self) {
        for server in &self.servers {
            server.is_up().await;
        }
        until("servers and sentinels", async || {
            let primary = self.named_by_all().await?;
            let shown: String = primary.command(&["INFO", "replication"]).await.ok()?;
            let is_primary = shown.contains("role:master");
            let in_step = shown.matches("state=online").count() == SERVERS - 1;
            let mut all_know = true;
            for sentinel in &self.sentinels {
                let shown = sentinel.command("INFO sentinel").await?;
                let shown: String = redis::from_redis_value(shown).ok()?;
                all_know &= shown.contains("status=ok") && shown.contains("slaves=1,sentinels=3");
            }
            (is_primary && in_step && all_know).then_some(())
        })
        .await;
    }

    /// The one that takes writes, as the sentinels see it.
    pub async fn primary(&self) -> &RedisNode {
        until("a primary", async || self.named_by_all().await).await
    }

    async fn named_by_all(&self) -> Option<&RedisNode> {
        let mut named = None;
        for sentinel in &self.sentinels {
            let shown = sentinel
                .command("SENTINEL get-master-addr-by-name main")
                .await?;
            let (_, port): (String, u16) = redis::from_redis_value(shown).ok()?;
            if named.is_some_and(|named| named != port) {
                return None;
            }
            named = Some(port);
        }
        self.servers
            .iter()
            .find(|server| Some(server.port()) == named)
    }

    /// Another server takes the primary's place, whether that agrees or not.
    pub async fn fail_over(&self, choice: usize) {
        let sentinel = &self.sentinels[choice % SENTINELS];
        // It refuses while another failover is on its way.
        let _ = sentinel.command("SENTINEL FAILOVER main").await;
    }
}

impl Sentinel {
    fn start(number: usize, program: &Path, settings: &str) -> Sentinel {
        let folder = TempDir::new().unwrap();
        let port = ports::free();
        let path = folder.path().display();
        let config = folder.path().join("sentinel.conf");
        std::fs::write(&config, format!("{settings}dir {path}\nport {port}\n")).unwrap();
        let (name, log) = (format!("sentinel {number}"), folder.path().join("log"));
        let program = program.to_owned();
        let process = Process::start(name, log, move || {
            let mut command = Command::new(&program);
            command.arg(&config).arg("--sentinel");
            command
        });
        Sentinel {
            process,
            port,
            _folder: folder,
        }
    }

    /// None when there was no answer, or an error.
    async fn command(&self, words: &str) -> Option<Value> {
        let client = Client::open(format!("redis://{}:{}", Ipv4Addr::LOCALHOST, self.port)).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next()?);
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut connection).await.ok()
    }
}
