//! Six Redis servers as one cluster: three primaries, each with a replica.

use std::time::{Duration, Instant};

use redis::{RedisResult, Value};
use tokio::process::Command;
use tokio::time::sleep;

use super::redis_node::{Launch, RedisNode};
use crate::support::deadline::{PATIENCE, until};

pub struct RedisCluster {
    pub nodes: Vec<RedisNode>,
}

const NODES: usize = 6;
/// A node that was silent for so many milliseconds is taken for dead.
const SILENCE_MS: &str = "1000";

/// A node as the others see it.
#[derive(Clone, Debug)]
struct Member {
    id: String,
    port: u16,
    is_primary: bool,
    has_slots: bool,
    failed: bool,
}

impl RedisCluster {
    pub async fn start() -> RedisCluster {
        let settings = format!("cluster-enabled yes\ncluster-node-timeout {SILENCE_MS}\n");
        let nodes = 1..=NODES;
        let launch = |number| Launch::here(format!("node {number}")).also(&settings);
        let nodes: Vec<_> = nodes.map(launch).map(RedisNode::start).collect();
        for node in &nodes {
            node.is_up().await;
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| node.address().to_string()));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let created = create.output().await.unwrap();
        let said = String::from_utf8_lossy(&created.stdout);
        assert!(created.status.success(), "no cluster: {said}");
        let cluster = RedisCluster { nodes };
        cluster.is_up().await;
        cluster
    }

    pub fn url(&self) -> String {
        let hosts = self.nodes.iter().map(|node| node.address().to_string());
        format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
    }

    /// All nodes are there, each sees the whole, and every primary has a replica that follows it.
    pub async fn is_up(&self) {
        for node in &self.nodes {
            node.is_up().await;
        }
        until("the cluster to be whole", async || {
            for node in &self.nodes {
                let info: String = node.command(&["CLUSTER", "INFO"]).await.ok()?;
                info.contains("cluster_state:ok").then_some(())?;
                let members = members(node).await.ok()?;
                let is_whole = members.len() == NODES && members.iter().all(|m| !m.failed);
                is_whole.then_some(())?;
                let role: String = node.command(&["INFO", "replication"]).await.ok()?;
                let follows = role.contains("role:master") || role.contains("link_status:up");
                follows.then_some(())?;
            }
            Some(())
        })
        .await;
    }

    fn node(&self, port: u16) -> Option<&RedisNode> {
        self.nodes.iter().find(|node| node.port() == port)
    }

    async fn members(&self) -> Vec<Member> {
        until("a node that knows the others", async || {
            for node in &self.nodes {
                if let Ok(members) = members(node).await {
                    return Some(members);
                }
            }
            None
        })
        .await
    }

    /// Those with slots, in the order of their ports.
    async fn primaries(&self) -> Vec<Member> {
        let mut members = self.members().await;
        members.retain(|member| member.is_primary && member.has_slots && !member.failed);
        members.sort_by_key(|member| member.port);
        members
    }

    pub async fn primary(&self, choice: usize) -> &RedisNode {
        let primaries = self.primaries().await;
        let port = primaries[choice % primaries.len()].port;
        self.node(port).expect("a primary is one of ours")
    }

    /// A replica takes its primary's place, in agreement with it.
    pub async fn fail_over(&self, choice: usize) {
        let mut members = self.members().await;
        members.retain(|member| !member.is_primary && !member.failed);
        members.sort_by_key(|member| member.port);
        let Some(member) = members.get(choice % members.len().max(1)) else {
            return;
        };
        if let Some(node) = self.node(member.port) {
            let _ = node.command::<Value>(&["CLUSTER", "FAILOVER"]).await;
        }
    }

    /// Moves a slot that is in use from one primary to another, key by key.
    pub async fn migrate_a_slot(&self, choice: usize, pause: Duration) {
        let primaries = self.primaries().await;
        let from = &primaries[choice % primaries.len()];
        let to = &primaries[(choice + 1) % primaries.len()];
        let (Some(source), Some(target)) = (self.node(from.port), self.node(to.port)) else {
            return;
        };
        let Ok(key) = source.command::<String>(&["RANDOMKEY"]).await else {
            return;
        };
        let slot: u16 = source.command(&["CLUSTER", "KEYSLOT", &key]).await.unwrap();
        let slot = slot.to_string();
        insist(
            target,
            &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id],
        )
        .await;
        insist(source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]).await;
        let port = to.port.to_string();
        loop {
            let words = ["CLUSTER", "GETKEYSINSLOT", &slot, "10"];
            let keys: Vec<String> = source.command(&words).await.unwrap_or_default();
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            insist(source, &words).await;
            sleep(pause).await;
        }
        for node in [target, source] {
            insist(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]).await;
        }
    }
}

async fn members(node: &RedisNode) -> RedisResult<Vec<Member>> {
    let text: String = node.command(&["CLUSTER", "NODES"]).await?;
    Ok(text.lines().filter_map(member).collect())
}

/// `id host:port@bus flags primary ping pong epoch link slots…`
fn member(line: &str) -> Option<Member> {
    let fields: Vec<_> = line.split(' ').collect();
    let (address, flags) = (fields.get(1)?, fields.get(2)?);
    let port = address.split('@').next()?.rsplit(':').next()?;
    Some(Member {
        id: (*fields.first()?).to_owned(),
        port: port.parse().ok()?,
        is_primary: flags.contains("master"),
        has_slots: fields.len() > 8,
        failed: flags.contains("fail") || flags.contains("handshake"),
    })
}

async fn insist(node: &RedisNode, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = node.command::<Value>(words).await {
        assert!(Instant::now() < deadline, "{words:?}: {error}");
        sleep(Duration::from_millis(20)).await;
    }
}
