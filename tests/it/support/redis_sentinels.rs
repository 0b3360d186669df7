//! A primary, two replicas, and three sentinels that watch over them.

use super::deadline::until;
use super::redis::RedisServer;

pub struct Sentinels {
    /// The first one was started as the primary.
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// With these settings for each server, and these lines for each sentinel.
    pub fn start(settings: &[&str], lines: &str) -> Self {
        let settings = [settings, &["--repl-diskless-sync-delay", "0"]].concat();
        let primary = RedisServer::start(&settings);
        let replica_of = format!("127.0.0.1 {}", primary.port);
        let settings = [settings.as_slice(), &["--replicaof", &replica_of]].concat();
        let mut servers = vec![primary];
        servers.extend([(), ()].map(|()| RedisServer::start(&settings)));
        let lines = format!(
            "sentinel monitor main {replica_of} 2\n\
             sentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n\
             {lines}\n"
        );
        let sentinels = [(), (), ()].map(|()| RedisServer::start_sentinel(&lines));
        Sentinels {
            servers,
            sentinels: sentinels.into(),
        }
    }

    /// As soon as all know each other and the replicas are in step. The options go before each command.
    pub async fn ready(&self, of_servers: &[&str], of_sentinels: &[&str]) {
        for sentinel in &self.sentinels {
            // They look more often than they would.
            let often = [
                "SENTINEL",
                "DEBUG",
                "info-period",
                "500",
                "publish-period",
                "300",
            ];
            sentinel.command(&[of_sentinels, &often].concat());
        }
        until("replicas and sentinels", async || {
            let in_step = self.servers[1..].iter().all(|replica| {
                let shown = replica.command(&[of_servers, &["INFO", "replication"]].concat());
                shown.contains("master_link_status:up")
            });
            let all_known = self.sentinels.iter().all(|sentinel| {
                let shown = sentinel.command(&[of_sentinels, &["INFO", "sentinel"]].concat());
                shown.contains("slaves=2,sentinels=3")
            });
            (in_step && all_known).then_some(())
        })
        .await;
    }

    /// Where the sentinels are, and under what name.
    pub fn place(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(RedisServer::host).collect();
        format!("{}/main", hosts.join(","))
    }
}
