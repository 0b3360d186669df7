//! Three primaries with a replica each, that share all slots.

use super::deadline::until;
use super::redis::{RedisServer, free_port};

const SLOTS: [&str; 3] = ["0 5460", "5461 10922", "10923 16383"];

pub struct RedisCluster {
    /// The first three were started as primaries; the replica of each is three places behind it.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub async fn start() -> Self {
        let nodes = (0..6).map(|_| node()).collect();
        let cluster = RedisCluster { nodes };
        let [first, others @ ..] = cluster.nodes.as_slice() else {
            unreachable!("six nodes");
        };
        for (at, node) in cluster.nodes.iter().enumerate() {
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for (node, slots) in cluster.nodes.iter().zip(SLOTS) {
            let words: Vec<_> = ["CLUSTER", "ADDSLOTSRANGE"].into_iter().collect();
            node.command(&[words, slots.split(' ').collect()].concat());
        }
        for other in others {
            let bus = setting(other, "cluster-port");
            let port = other.port.to_string();
            first.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        until("the nodes to meet", async || {
            let all_know = |node: &RedisServer| {
                let shown = node.command(&["CLUSTER", "NODES"]);
                shown
                    .lines()
                    .filter(|line| line.contains(" connected"))
                    .count()
                    == 6
            };
            cluster.nodes.iter().all(all_know).then_some(())
        })
        .await;
        for (primary, replica) in cluster.nodes.iter().zip(&cluster.nodes[3..]) {
            replica.command(&["CLUSTER", "REPLICATE", &id(primary)]);
        }
        until("the cluster to serve", async || {
            let serves = |node: &RedisServer| {
                let info = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok")
            };
            let follows = |node: &RedisServer| {
                let info = node.command(&["INFO", "replication"]);
                info.contains("master_link_status:up")
            };
            let ready = cluster.nodes.iter().all(serves) && cluster.nodes[3..].iter().all(follows);
            ready.then_some(())
        })
        .await;
        cluster
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(RedisServer::host).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Which of the first three has the slot of this key.
    pub fn primary_of(&self, key: &str) -> usize {
        let slot: u16 = self.slot_of(key).parse().unwrap();
        usize::from(slot > 5460) + usize::from(slot > 10922)
    }

    pub fn slot_of(&self, key: &str) -> String {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", key])
    }

    /// Tells both that a slot is on its way from one to another.
    pub fn begin_to_move(&self, slot: &str, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        to.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &id(from)]);
        from.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &id(to)]);
    }

    /// Moves up to so many keys; gives the number of those that it found.
    pub fn move_keys(&self, slot: &str, from: usize, to: usize, max: usize) -> usize {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let max = max.to_string();
        let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", slot, &max]);
        let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
        if !keys.is_empty() {
            let port = to.port.to_string();
            let words = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let answer = from.command(&[words.as_slice(), &keys].concat());
            assert_eq!(answer, "OK");
        }
        keys.len()
    }

    /// Tells all primaries where the slot is now.
    pub fn has_moved(&self, slot: &str, from: usize, to: usize) {
        let new = id(&self.nodes[to]);
        let others = (0..3).filter(|&at| at != from && at != to);
        for at in [to, from].into_iter().chain(others) {
            self.nodes[at].command(&["CLUSTER", "SETSLOT", slot, "NODE", &new]);
        }
    }
}

fn node() -> RedisServer {
    // The usual distance to the second port leads out of the range.
    let bus = free_port().to_string();
    RedisServer::start(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-node-timeout",
        "1000",
        "--repl-diskless-sync-delay",
        "0",
    ])
}

fn id(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "MYID"])
}

fn setting(node: &RedisServer, name: &str) -> String {
    let shown = node.command(&["CONFIG", "GET", name]);
    shown.lines().nth(1).unwrap_or_default().to_owned()
}
