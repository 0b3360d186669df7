//! The processes of a trial.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::balancer::Balancer;
use super::errands::Errands;
use super::fault::{Class, Fault};
use super::naive;
use super::network::{End, Network, OWN_WAY};
use super::operator::Operator;
use super::process::Process;
use super::redis_cluster::RedisCluster;
use super::redis_node::{Launch, RedisNode};
use super::redis_sentinels::RedisSentinels;
use super::relay::Relay;
use super::replica::{Replica, answers};
use super::resp_proxy::{Chances, RespProxy};
use super::seed::Seed;
use super::trace::Traces;
use super::violation::{Rule, Violation};
use crate::support::Setup;
use crate::support::deadline::{PATIENCE, until};

/// What the replicas keep their tasks in.
enum Backing {
    Embedded,
    Redis(RedisNode),
    Cluster(RedisCluster),
    Sentinels(RedisSentinels),
}

pub struct Stage {
    pub replicas: Vec<Replica>,
    store: Backing,
    balancer: Option<Balancer>,
    /// Outside of the service, leasing its tasks.
    workers: Vec<Process>,
    /// Between the replicas and Redis.
    pub proxy: Option<RespProxy>,
    /// The way of each replica to Redis, when it can be broken.
    relays: Vec<Relay>,
    /// With a way for each replica, numbered from 1.
    network: Option<Network>,
    /// Where losses are possible.
    operator: Option<Operator>,
    /// The first replica ends by itself, again and again: so often as yet.
    ended_by_itself: Option<AtomicUsize>,
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
        Stage::ready(replicas, Backing::Embedded, traces).await
    }

    /// Several replicas over one Redis.
    pub async fn redis(replicas: usize) -> Stage {
        let traces = Traces::new();
        let redis = RedisNode::start(Launch::here("redis".to_owned()));
        redis.is_up().await;
        let replicas = replicas_over(&vec![redis.url(); replicas], &traces);
        Stage::ready(replicas, Backing::Redis(redis), traces).await
    }

    /// The same, each replica by a way of its own that can be broken.
    pub async fn relayed(replicas: usize) -> Stage {
        let traces = Traces::new();
        let redis = RedisNode::start(Launch::here("redis".to_owned()));
        redis.is_up().await;
        let mut relays = Vec::new();
        for _ in 0..replicas {
            relays.push(Relay::start(redis.address()).await);
        }
        let urls = relays
            .iter()
            .map(|relay| format!("redis://{}", relay.address));
        let replicas = replicas_over(&urls.collect::<Vec<_>>(), &traces);
        let stage = Stage::ready(replicas, Backing::Redis(redis), traces).await;
        Stage { relays, ..stage }
    }

    /// The same, in a network whose packets can be lost. The error says why there can be none here.
    pub async fn networked(replicas: usize) -> Result<Stage, String> {
        let traces = Traces::new();
        let network = Network::new(replicas)?;
        let redis = RedisNode::start(Launch {
            within: network.within(),
            host: network.far(OWN_WAY),
            settings: "bind 0.0.0.0\nprotected-mode no\n".to_owned(),
            ..Launch::here("redis".to_owned())
        });
        redis.is_up().await;
        let ways = 1..=replicas;
        let urls = ways.map(|way| format!("redis://{}:{}", network.far(way), redis.port()));
        let replicas = replicas_over(&urls.collect::<Vec<_>>(), &traces);
        let stage = Stage::ready(replicas, Backing::Redis(redis), traces).await;
        Ok(Stage {
            network: Some(network),
            ..stage
        })
    }

    /// Several replicas over servers that sentinels watch; each acknowledgement is on two servers.
    pub async fn sentinels(replicas: usize) -> Stage {
        let traces = Traces::new();
        let sentinels = RedisSentinels::start().await;
        let replica = |number| {
            let setup = Setup::new()
                .env("JUSTONCE_STORE", &sentinels.url())
                .env("JUSTONCE_DURABILITY", "replicated-fsync")
                .config(&traces.config());
            Replica::start(format!("replica {number}"), setup)
        };
        let replicas = (1..=replicas).map(replica).collect();
        Stage::ready(replicas, Backing::Sentinels(sentinels), traces).await
    }

    /// The baseline, over one Redis.
    pub async fn naive(replicas: usize) -> Stage {
        let traces = Traces::new();
        let redis = RedisNode::start(Launch::here("redis".to_owned()));
        redis.is_up().await;
        let numbers = 1..=replicas;
        let replica = |number| {
            let log = traces.path().join(format!("log {number}"));
            let (url, program) = (redis.url(), traces.program());
            Replica::of(format!("replica {number}"), log, move |address| {
                naive::command(address, &url, &program)
            })
        };
        let replicas = numbers.map(replica).collect();
        Stage::ready(replicas, Backing::Redis(redis), traces).await
    }

    /// Several replicas over one Redis, with somebody in between.
    pub async fn meddled_with(replicas: usize, chances: Chances, seed: Seed) -> Stage {
        let traces = Traces::new();
        let redis = RedisNode::start(Launch::here("redis".to_owned()));
        redis.is_up().await;
        let proxy = RespProxy::start(redis.address(), chances, seed).await;
        let url = format!("redis://{}", proxy.address);
        let replicas = replicas_over(&vec![url; replicas], &traces);
        let stage = Stage::ready(replicas, Backing::Redis(redis), traces).await;
        Stage {
            proxy: Some(proxy),
            ..stage
        }
    }

    /// Several replicas over a cluster.
    pub async fn cluster(replicas: usize) -> Stage {
        let traces = Traces::new();
        let cluster = RedisCluster::start().await;
        let replicas = replicas_over(&vec![cluster.url(); replicas], &traces);
        Stage::ready(replicas, Backing::Cluster(cluster), traces).await
    }

    /// Several replicas over one Redis, behind a balancer, with all that the tasks of a day need.
    pub async fn of_a_day(
        replicas: usize,
        workers: usize,
        errands: &Errands,
        traces: Traces,
    ) -> Stage {
        let redis = RedisNode::start(Launch::here("redis".to_owned()));
        redis.is_up().await;
        let files = format!("file://{}", traces.path().join("files").display());
        let config = format!("{}{}", traces.config(), errands.config());
        let replica = |number| {
            let setup = Setup::new()
                .env("JUSTONCE_STORE", &redis.url())
                .env("JUSTONCE_BLOBS", &files)
                .config(&config);
            Replica::start(format!("replica {number}"), errands.known_to(setup))
        };
        let replicas = (1..=replicas).map(replica).collect();
        let stage = Stage::ready(replicas, Backing::Redis(redis), traces).await;
        let mut stage = stage.balanced().await;
        let addresses = stage.addresses();
        let worker = |number: usize| {
            let url = format!("http://{}", addresses[number % addresses.len()]);
            let (traces, log) = (stage.traces.file(), stage.traces.path().join("worker"));
            Process::start(format!("worker {number}"), log, move || {
                let root = env!("CARGO_MANIFEST_DIR");
                let mut command = Command::new("python3");
                command.arg(format!("{root}/tests/it/support/far_worker.py"));
                command.env("EXAMPLES", format!("{root}/examples/python"));
                command.env("JUSTONCE_URL", &url).env("TRACES", &traces);
                command
            })
        };
        stage.workers = (0..workers).map(worker).collect();
        stage
    }

    async fn ready(replicas: Vec<Replica>, store: Backing, traces: Traces) -> Stage {
        for replica in &replicas {
            replica.is_ready().await;
        }
        Stage {
            replicas,
            store,
            balancer: None,
            workers: Vec::new(),
            proxy: None,
            relays: Vec::new(),
            network: None,
            operator: None,
            ended_by_itself: None,
            traces,
        }
    }

    /// With somebody who accepts what was lost: a cluster does not wait for its replicas. Over sentinels nothing may be, and
    /// a trial in which somebody says so comes to its end all the same.
    pub fn operated(mut self) -> Stage {
        let url = match &self.store {
            Backing::Cluster(cluster) => Some(cluster.url()),
            Backing::Sentinels(sentinels) => Some(sentinels.url()),
            Backing::Embedded | Backing::Redis(_) => None,
        };
        self.operator = url.map(|url| Operator::of(&url));
        self
    }

    /// How often replicas have said that acknowledged state was lost.
    pub fn losses_said(&self) -> u64 {
        self.operator.as_ref().map_or(0, Operator::accepted)
    }

    /// One replica with the embedded store, or two over one Redis. The first has these variables at each start,
    /// and ends by itself.
    #[cfg(feature = "failpoints")]
    pub async fn of_variables(
        over_redis: bool,
        variables: impl Fn() -> Vec<(&'static str, String)> + Send + 'static,
    ) -> Stage {
        let traces = Traces::new();
        let setup = |url: &str| {
            let setup = Setup::new().env("JUSTONCE_STORE", url);
            setup.config(&traces.config())
        };
        if !over_redis {
            let first = Replica::start_with("the service".to_owned(), setup("embedded"), variables);
            let stage = Stage::ready(vec![first], Backing::Embedded, traces).await;
            return stage.of_lives();
        }
        let redis = RedisNode::start(Launch::here("redis".to_owned()));
        redis.is_up().await;
        let (one, other) = (setup(&redis.url()), setup(&redis.url()));
        let first = Replica::start_with("replica 1".to_owned(), one, variables);
        let second = Replica::start("replica 2".to_owned(), other);
        let stage = Stage::ready(vec![first, second], Backing::Redis(redis), traces).await;
        stage.of_lives()
    }

    #[cfg(feature = "failpoints")]
    fn of_lives(mut self) -> Stage {
        self.ended_by_itself = Some(AtomicUsize::new(0));
        self
    }

    /// Behind a balancer, where one is installed; else the clients choose among the replicas.
    pub async fn balanced(mut self) -> Stage {
        self.balancer = Balancer::start(self.replicas.iter().map(|replica| replica.address));
        if let Some(balancer) = &self.balancer {
            until("the balancer", async || {
                answers(balancer.address).await.then_some(())
            })
            .await;
        }
        self
    }

    /// Where clients send to.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        if let Some(balancer) = &self.balancer {
            return Arc::new([balancer.address]);
        }
        self.replicas
            .iter()
            .map(|replica| replica.address)
            .collect()
    }

    /// Lets it go wrong, and then lets it be well again. Returns when the processes run again; the service
    /// may take longer.
    pub async fn suffer(&self, fault: Fault) {
        let victim = &self.replicas[fault.victim % self.replicas.len()];
        let replica = &victim.process;
        let lasts = sleep(fault.lasts);
        match fault.class {
            Class::KillReplica => {
                replica.kill().await;
                lasts.await;
                replica.bring_up();
            }
            Class::KillWorker => {
                let worker = &self.workers[fault.victim % self.workers.len()];
                worker.kill().await;
                lasts.await;
                worker.bring_up();
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
            Class::OutOfFiles => {
                const FEW: u64 = 8;
                const USUAL: u64 = 1024;
                // One that is starting would rightly give up.
                victim.is_ready().await;
                replica.limit_files(FEW);
                lasts.await;
                replica.limit_files(USUAL);
            }
            Class::FailPoint => {
                let ended = self.ended_by_itself.as_ref().expect("a replica that ends");
                let ends = 1 + ended.fetch_add(1, Ordering::Relaxed);
                let first = &self.replicas[0].process;
                until("a replica's end", async || {
                    (first.unasked_ends().len() >= ends).then_some(())
                })
                .await;
            }
            Class::Partition => {
                let relay = &self.relays[fault.victim % self.relays.len()];
                relay.fall_silent();
                lasts.await;
                relay.speak(fault.victim.is_multiple_of(2));
            }
            Class::CutOff => self.lose_packets(fault, &[End::Replica, End::Redis]).await,
            Class::DeafReplica => self.lose_packets(fault, &[End::Redis]).await,
            Class::MuteReplica => self.lose_packets(fault, &[End::Replica]).await,
            _ => match &self.store {
                Backing::Embedded => panic!("{fault} needs Redis"),
                Backing::Redis(redis) => redis_suffers(redis, fault, lasts).await,
                Backing::Cluster(cluster) => cluster_suffers(cluster, fault, lasts).await,
                Backing::Sentinels(sentinels) => sentinels_suffer(sentinels, fault, lasts).await,
            },
        }
    }

    async fn lose_packets(&self, fault: Fault, senders: &[End]) {
        let network = self.network.as_ref().expect("a network");
        let way = 1 + fault.victim % self.replicas.len();
        for &sender in senders {
            network.lose_what_is_sent_by(sender, way);
        }
        sleep(fault.lasts).await;
        network.mend(way);
    }

    /// All processes run and are ready.
    pub async fn recovered(&self) {
        match &self.store {
            Backing::Embedded => {}
            Backing::Redis(redis) => redis.is_up().await,
            Backing::Cluster(cluster) => cluster.is_up().await,
            Backing::Sentinels(sentinels) => sentinels.is_up().await,
        }
        for replica in &self.replicas {
            replica.is_ready().await;
        }
    }

    /// What `justonce doctor` finds wrong with the store, while the replicas are at work on it.
    pub async fn contradictions(&self) -> Vec<Violation> {
        const DOCTOR_MAX: Duration = Duration::from_secs(600);
        let Some(setup) = self.replicas[0].setup.clone() else {
            return Vec::new();
        };
        let setup = match &self.store {
            Backing::Embedded => setup,
            // By the straight way.
            Backing::Redis(redis) => setup.env("JUSTONCE_STORE", &redis.url()),
            Backing::Cluster(cluster) => setup.env("JUSTONCE_STORE", &cluster.url()),
            Backing::Sentinels(sentinels) => setup.env("JUSTONCE_STORE", &sentinels.url()),
        };
        let mut doctor = setup.command();
        let output = timeout(DOCTOR_MAX, doctor.arg("doctor").output()).await;
        let output = output.expect("the doctor does not end").unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        println!("{said}");
        let wrong = said.lines().filter_map(|line| line.strip_prefix("wrong: "));
        let mut wrong: Vec<_> = wrong.map(str::to_owned).collect();
        if !output.status.success() && wrong.is_empty() {
            wrong.push(said);
        }
        let rule = Rule::Contradiction;
        let wrong = wrong.into_iter();
        wrong.map(|detail| Violation { rule, detail }).collect()
    }

    /// Ends that nobody had asked for. A replica may not find Redis when it starts, and is started again.
    pub fn crashes(&self) -> Vec<Violation> {
        let mut crashes = Vec::new();
        let servers = match &self.store {
            Backing::Embedded => &[],
            Backing::Redis(redis) => std::slice::from_ref(redis),
            Backing::Cluster(cluster) => cluster.nodes.as_slice(),
            Backing::Sentinels(sentinels) => sentinels.servers.as_slice(),
        };
        let servers = servers.iter().map(|node| &node.process);
        let balancer = self.balancer.iter().map(|balancer| &balancer.process);
        let sentinels = match &self.store {
            Backing::Sentinels(set) => set.sentinels.as_slice(),
            Backing::Embedded | Backing::Redis(_) | Backing::Cluster(_) => &[],
        };
        let sentinels = sentinels.iter().map(|sentinel| &sentinel.process);
        let workers = self.workers.iter();
        for process in servers.chain(balancer).chain(sentinels).chain(workers) {
            for status in process.unasked_ends() {
                let detail = format!("{} ended: {status}", process.name);
                crashes.push((Rule::Crash, detail));
            }
        }
        for replica in &self.replicas {
            for status in replica.process.unasked_ends() {
                let needs_others = !matches!(self.store, Backing::Embedded);
                if needs_others && status.starts_with("exit status: 1\n") {
                    continue;
                }
                if self.ended_by_itself.is_some() && status.contains(": aborted") {
                    continue;
                }
                let detail = format!("{} ended: {status}", replica.process.name);
                crashes.push((Rule::Crash, detail));
            }
        }
        let crashes = crashes.into_iter();
        crashes
            .map(|(rule, detail)| Violation { rule, detail })
            .collect()
    }
}

/// One for each address.
fn replicas_over(urls: &[String], traces: &Traces) -> Vec<Replica> {
    let replica = |(index, url): (usize, &String)| {
        let setup = Setup::new()
            .env("JUSTONCE_STORE", url)
            .config(&traces.config());
        Replica::start(format!("replica {}", index + 1), setup)
    };
    urls.iter().enumerate().map(replica).collect()
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
        Class::ChangePolicy => {
            let policy = ["CONFIG", "SET", "maxmemory-policy"];
            said(redis, &[&policy[..], &["allkeys-lru"]].concat()).await;
            lasts.await;
            said(redis, &[&policy[..], &["noeviction"]].concat()).await;
        }
        _ => panic!("{fault} needs more than one Redis"),
    }
}

async fn cluster_suffers(cluster: &RedisCluster, fault: Fault, lasts: tokio::time::Sleep) {
    match fault.class {
        Class::KillPrimary => {
            let primary = &cluster.primary(fault.victim).await.process;
            primary.kill().await;
            lasts.await;
            primary.bring_up();
            cluster.is_up().await;
        }
        Class::PausePrimary => {
            let primary = &cluster.primary(fault.victim).await.process;
            primary.pause();
            lasts.await;
            primary.resume();
            cluster.is_up().await;
        }
        Class::FailOver => {
            cluster.fail_over(fault.victim).await;
            cluster.is_up().await;
        }
        Class::MigrateSlot => cluster.migrate_a_slot(fault.victim, fault.lasts).await,
        _ => redis_suffers(cluster.primary(fault.victim).await, fault, lasts).await,
    }
}

async fn sentinels_suffer(sentinels: &RedisSentinels, fault: Fault, lasts: tokio::time::Sleep) {
    match fault.class {
        Class::KillPrimary => {
            let primary = &sentinels.primary().await.process;
            primary.kill().await;
            lasts.await;
            primary.bring_up();
        }
        Class::PausePrimary => {
            let primary = &sentinels.primary().await.process;
            primary.pause();
            lasts.await;
            primary.resume();
        }
        Class::FailOver => sentinels.fail_over(fault.victim).await,
        _ => return redis_suffers(sentinels.primary().await, fault, lasts).await,
    }
    sentinels.is_up().await;
}

/// Redis may still be busy with what the last fault left.
async fn said(redis: &RedisNode, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = redis.command::<redis::Value>(words).await {
        assert!(Instant::now() < deadline, "{words:?}: {error}");
        sleep(Duration::from_millis(15)).await;
    }
}
