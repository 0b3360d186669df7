//! The processes of a trial.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::fault::{Class, Fault};
use super::redis_node::RedisNode;
use super::replica::Replica;
use super::trace::Traces;
use super::violation::{Rule, Violation};
use crate::support::Setup;
use crate::support::deadline::PATIENCE;

pub struct Stage {
    pub replicas: Vec<Replica>,
    redis: Option<RedisNode>,
    pub traces: Traces,
}

impl Stage {
    /// One process with the embedded store.
    pub async fn embedded() -> Stage {
        let traces = Traces::new();
        let setup = Setup::new()
            .env("JUSTONCE_STORE", "embedded")
            .config(&traces.config());
        let replicas = vec![Replica::start("the service".to_owned(), setup)];
        Stage::ready(replicas, None, traces).await
    }

    /// Several replicas over one Redis.
    pub async fn redis(replicas: usize) -> Stage {
        let traces = Traces::new();
        let redis = RedisNode::start("redis".to_owned(), &[]);
        redis.is_up().await;
        let replicas = (1..=replicas).map(|number| {
            let setup = Setup::new()
                .env("JUSTONCE_STORE", &redis.url())
                .config(&traces.config());
            Replica::start(format!("replica {number}"), setup)
        });
        Stage::ready(replicas.collect(), Some(redis), traces).await
    }

    async fn ready(replicas: Vec<Replica>, redis: Option<RedisNode>, traces: Traces) -> Stage {
        for replica in &replicas {
            replica.is_ready().await;
        }
        Stage {
            replicas,
            redis,
            traces,
        }
    }

    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        self.replicas
            .iter()
            .map(|replica| replica.address)
            .collect()
    }

    /// Lets it go wrong, and then lets it be well again. Returns when the processes run again; the service
    /// may take longer.
    pub async fn suffer(&self, fault: Fault) {
        let replica = &self.replicas[fault.victim % self.replicas.len()].process;
        let lasts = sleep(fault.lasts);
        match fault.class {
            Class::KillReplica => {
                replica.kill().await;
                lasts.await;
                replica.bring_up();
            }
            Class::PauseReplica => {
                replica.pause();
                lasts.await;
                replica.resume();
            }
            Class::RestartReplica => {
                replica.terminate().await;
                replica.bring_up();
            }
            _ => {
                let redis = self.redis.as_ref().expect("faults of Redis need one");
                redis_suffers(redis, fault, lasts).await;
            }
        }
    }

    /// All processes run and are ready.
    pub async fn recovered(&self) {
        if let Some(redis) = &self.redis {
            redis.is_up().await;
        }
        for replica in &self.replicas {
            replica.is_ready().await;
        }
    }

    /// Ends that nobody had asked for. A replica may not find Redis when it starts, and is started again.
    pub fn crashes(&self) -> Vec<Violation> {
        let mut crashes = Vec::new();
        let servers = self.redis.iter().map(|redis| &redis.process);
        for process in servers {
            for status in process.unasked_ends() {
                let detail = format!("{} ended: {status}", process.name);
                crashes.push((Rule::Crash, detail));
            }
        }
        for replica in &self.replicas {
            for status in replica.process.unasked_ends() {
                if self.redis.is_some() && status == "exit status: 1" {
                    continue;
                }
                let (name, log) = (&replica.process.name, replica.log());
                crashes.push((Rule::Crash, format!("{name} ended: {status}\n{log}")));
            }
        }
        let crashes = crashes.into_iter();
        crashes
            .map(|(rule, detail)| Violation { rule, detail })
            .collect()
    }
}

async fn redis_suffers(redis: &RedisNode, fault: Fault, lasts: tokio::time::Sleep) {
    let ms = fault.lasts.as_millis().to_string();
    let seconds = fault.lasts.as_secs_f64().to_string();
    match fault.class {
        Class::KillRedis => {
            redis.process.kill().await;
            lasts.await;
            redis.process.bring_up();
            redis.is_up().await;
        }
        Class::PauseRedis => {
            redis.process.pause();
            lasts.await;
            redis.process.resume();
        }
        Class::FlushScripts => said(redis, &["SCRIPT", "FLUSH"]).await,
        Class::CutConnections => said(redis, &["CLIENT", "KILL", "TYPE", "normal"]).await,
        Class::OutOfMemory => {
            said(redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
            lasts.await;
            said(redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
        }
        Class::SleepRedis => said(redis, &["DEBUG", "SLEEP", &seconds]).await,
        Class::BusyScript => {
            let spin = redis.command::<redis::Value>(&["EVAL", "while true do end", "0"]);
            let kill = async {
                lasts.await;
                said(redis, &["SCRIPT", "KILL"]).await;
            };
            // It ends with an error as soon as it is killed, or does not begin.
            tokio::select! {
                _ = spin => {}
                () = kill => {}
            }
        }
        Class::HoldClients => {
            said(redis, &["CLIENT", "PAUSE", &ms, "ALL"]).await;
            lasts.await;
        }
        Class::ReadOnly => {
            said(redis, &["REPLICAOF", "127.0.0.1", "1"]).await;
            lasts.await;
            said(redis, &["REPLICAOF", "NO", "ONE"]).await;
        }
        Class::KillReplica | Class::PauseReplica | Class::RestartReplica => {}
    }
}

/// Redis may still be busy with what the last fault left.
async fn said(redis: &RedisNode, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = redis.command::<redis::Value>(words).await {
        assert!(Instant::now() < deadline, "{words:?}: {error}");
        sleep(Duration::from_millis(15)).await;
    }
}
