//! Connections to Redis: one server, the primary that sentinels name, or a cluster.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, Pipeline, RedisError,
    RedisResult, ServerErrorKind, Value, from_redis_value,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::server::Server;

/// A step that was not answered for so long has an unknown outcome.
pub const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(2);
/// A connection that leaves a command without an answer for so long is given up: its server may be
/// silent for good. A little less than a step waits, so that there is still somebody to notice.
const SILENCE_MAX: Duration = Duration::from_millis(1800);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Commands on their way at a time; the next ones wait for their turn.
const IN_FLIGHT_MAX: usize = 4096;
const BUFFERED_COMMANDS: usize = 1024;

/// What the verbs need of a connection. Nothing in here repeats a command.
#[async_trait]
pub trait Commands: Send + Sync + 'static {
    /// With who has answered.
    async fn run(&self, cmd: &Cmd) -> RedisResult<(Value, Server)>;

    /// The answers of all servers that take writes. One that cannot be reached now may be left out.
    async fn on_every_primary(&self, cmd: &Cmd) -> RedisResult<Vec<Value>>;

    /// Commands behind one another on one connection, to the server that holds the key. With who has answered.
    async fn run_together(&self, key: &str, cmds: &[Cmd]) -> RedisResult<(Vec<Value>, Server)>;

    /// Makes the next connection anew, where there is one for everything: it may lead to a server that is not the one any
    /// more.
    fn connect_anew(&self) {}

    /// Whether one server holds everything.
    fn is_one_server(&self) -> bool;

    /// A connection of its own for news.
    async fn subscribe(&self, channel: &str) -> RedisResult<PubSub>;
}

/// Where the server that takes writes is.
pub enum Source {
    Server(Box<Client>),
    Sentinel(Arc<Mutex<SentinelClient>>),
}

/// One connection that all commands share, made anew after it broke.
pub struct Single {
    source: Source,
    current: RwLock<Option<Numbered>>,
    connecting: Mutex<()>,
}

#[derive(Clone)]
struct Numbered {
    connection: MultiplexedConnection,
    number: u64,
    server: Server,
}

impl Single {
    pub fn new(source: Source) -> Self {
        Single {
            source,
            current: RwLock::new(None),
            connecting: Mutex::new(()),
        }
    }

    async fn client(&self) -> RedisResult<Client> {
        match &self.source {
            Source::Server(client) => Ok(Client::clone(client)),
            Source::Sentinel(sentinels) => sentinels.lock().await.async_get_client().await,
        }
    }

    fn known(&self) -> Option<Numbered> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    async fn connection(&self) -> RedisResult<Numbered> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _alone = self.connecting.lock().await;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WAIT_MAX))
            .set_response_timeout(Some(SILENCE_MAX))
            .set_pipeline_buffer_size(BUFFERED_COMMANDS)
            .set_concurrency_limit(IN_FLIGHT_MAX);
        let client = self.client().await.map_err(never_sent)?;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(never_sent)?;
        let made = Numbered {
            server: Server::of(&mut connection).await,
            connection,
            number: fastrand::u64(..),
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        Ok(made)
    }

    /// A connection that is broken, or silent, or leads to a server that is no primary any more.
    fn give_up_after(&self, number: u64, error: &RedisError) {
        let demoted = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        if !(demoted || error.is_timeout() || error.is_unrecoverable_error()) {
            return;
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|known| known.number == number) {
            *current = None;
        }
    }
}

/// What failed before there was a connection was never sent.
fn never_sent(error: RedisError) -> RedisError {
    if error.kind() == ErrorKind::Io {
        io::Error::new(io::ErrorKind::ConnectionRefused, error).into()
    } else {
        error
    }
}

#[async_trait]
impl Commands for Single {
    async fn run(&self, cmd: &Cmd) -> RedisResult<(Value, Server)> {
        let Numbered {
            mut connection,
            number,
            server,
        } = self.connection().await?;
        let answer = connection.req_packed_command(cmd).await;
        let answer = answer.and_then(Value::extract_error);
        let answer = answer.inspect_err(|error| self.give_up_after(number, error))?;
        Ok((answer, server))
    }

    async fn on_every_primary(&self, cmd: &Cmd) -> RedisResult<Vec<Value>> {
        Ok(vec![self.run(cmd).await?.0])
    }

    async fn run_together(&self, _: &str, cmds: &[Cmd]) -> RedisResult<(Vec<Value>, Server)> {
        let Numbered {
            mut connection,
            number,
            server,
        } = self.connection().await?;
        let pipeline = pipeline(cmds);
        let answers = connection.req_packed_commands(&pipeline, 0, cmds.len());
        let answers = answers.await.and_then(|answers| {
            let answers = answers.into_iter().map(Value::extract_error);
            answers.collect::<RedisResult<_>>()
        });
        let answers = answers.inspect_err(|error| self.give_up_after(number, error))?;
        Ok((answers, server))
    }

    fn connect_anew(&self) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_one_server(&self) -> bool {
        true
    }

    async fn subscribe(&self, channel: &str) -> RedisResult<PubSub> {
        subscribe(&self.client().await?, channel).await
    }
}

/// Connections to all servers of a cluster. The client follows moved slots and makes broken connections
/// anew by itself; what it does not notice is silence.
///
/// Asked to go elsewhere for a slot that is just moving (`ASK`), it does not go: some keys of a partition
/// would be here and some there, and a script would find half of its records. As no key is named like a
/// partition's root, which every script names, such a slot refuses all scripts until it has moved.
pub struct Cluster {
    client: ClusterClient,
    current: Arc<RwLock<ClusterConnection>>,
    connecting: Arc<Mutex<()>>,
    /// Any of them passes news on to all.
    nodes: Vec<Client>,
}

/// The client would repeat scripts by itself: it must not.
pub fn cluster(nodes: impl Iterator<Item = ConnectionInfo>) -> ClusterClientBuilder {
    ClusterClientBuilder::new(nodes)
        .retries(0)
        .connection_timeout(CONNECT_WAIT_MAX)
        .response_timeout(SILENCE_MAX)
}

impl Cluster {
    pub async fn connect(client: ClusterClient, nodes: Vec<Client>) -> RedisResult<Self> {
        let connection = client.get_async_connection().await?;
        Ok(Cluster {
            client,
            current: Arc::new(RwLock::new(connection)),
            connecting: Arc::default(),
            nodes,
        })
    }

    fn connection(&self) -> ClusterConnection {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Makes all connections anew, beside those that there are.
    fn connect_again(&self) {
        let Ok(alone) = self.connecting.clone().try_lock_owned() else {
            return;
        };
        let (client, current) = (self.client.clone(), self.current.clone());
        tokio::spawn(async move {
            match client.get_async_connection().await {
                Ok(made) => *current.write().unwrap_or_else(PoisonError::into_inner) = made,
                Err(error) => tracing::debug!(%error, "cannot connect to the cluster again"),
            }
            drop(alone);
        });
    }
}

#[async_trait]
impl Commands for Cluster {
    async fn run(&self, cmd: &Cmd) -> RedisResult<(Value, Server)> {
        let answer = self.connection().req_packed_command(cmd).await;
        let answer = answer.and_then(Value::extract_error);
        let answer = match answer {
            Err(error) if error.is_timeout() => {
                self.connect_again();
                Err(error)
            }
            // With no server left, the client ends so also what was on its way before.
            Err(error)
                if error.is_connection_refusal()
                    || error.kind() == ErrorKind::ClusterConnectionNotFound =>
            {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, error).into())
            }
            answer => answer,
        };
        Ok((answer?, Server::default()))
    }

    async fn on_every_primary(&self, cmd: &Cmd) -> RedisResult<Vec<Value>> {
        let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let mut connection = self.connection();
        let answers = connection.route_command(cmd.clone(), everywhere).await?;
        let by_address: HashMap<String, Value> = from_redis_value(answers)?;
        let answers = by_address.into_values();
        answers.map(Value::extract_error).collect()
    }

    async fn run_together(&self, key: &str, cmds: &[Cmd]) -> RedisResult<(Vec<Value>, Server)> {
        let node = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
        let mut connection = self.connection();
        let answers = connection.route_pipeline(pipeline(cmds), 0, cmds.len(), node);
        let answers = answers.await?.into_iter().map(Value::extract_error);
        Ok((answers.collect::<RedisResult<_>>()?, Server::default()))
    }

    fn is_one_server(&self) -> bool {
        false
    }

    async fn subscribe(&self, channel: &str) -> RedisResult<PubSub> {
        let nobody = (
            ErrorKind::ClusterConnectionNotFound,
            "no node of the cluster answers",
        );
        let mut failure = nobody.into();
        for node in &self.nodes {
            match subscribe(node, channel).await {
                Ok(subscribed) => return Ok(subscribed),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn pipeline(cmds: &[Cmd]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for cmd in cmds {
        pipeline.add_command(cmd.clone());
    }
    pipeline
}

async fn subscribe(client: &Client, channel: &str) -> RedisResult<PubSub> {
    let subscribing = async {
        let mut subscribed = client.get_async_pubsub().await?;
        subscribed.subscribe(channel).await?;
        Ok(subscribed)
    };
    let subscribed = timeout(RESPONSE_WAIT_MAX, subscribing).await;
    subscribed.map_err(io::Error::from)?
}
