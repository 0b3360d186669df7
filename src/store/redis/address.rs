//! Where Redis is: `redis://`, `redis+sentinel://` and `redis+cluster://`.

use std::sync::Arc;

use redis::cluster::ClusterClientBuilder;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};
use tokio::sync::Mutex;
use url::Url;

use super::link::{Cluster, Commands, RESPONSE_WAIT_MAX, Single, Source};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A parsed address; shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    kind: Kind,
    hosts: Vec<(String, u16)>,
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Server,
    /// Their name for the servers.
    Sentinel(String),
    Cluster,
}

impl Address {
    /// The error is for the operator, and does not repeat the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("the form is redis://host")?;
        if scheme.starts_with("rediss") {
            return Err("encrypted connections come with a later release".to_owned());
        }
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut path = path.split('/').filter(|part| !part.is_empty());
        let (kind, port) = match scheme {
            "redis" => (Kind::Server, PORT),
            "redis+cluster" => (Kind::Cluster, PORT),
            "redis+sentinel" => {
                let name = path
                    .next()
                    .ok_or("the form is redis+sentinel://host,host/name")?;
                (Kind::Sentinel(name.to_owned()), SENTINEL_PORT)
            }
            _ => {
                return Err(
                    "the forms are redis://, redis+sentinel:// and redis+cluster://".to_owned(),
                );
            }
        };
        let hosts: Vec<_> = hosts
            .split(',')
            .map(|host| host_and_port(host, port))
            .collect::<Result<_, _>>()?;
        if kind == Kind::Server && hosts.len() > 1 {
            return Err("several hosts are for redis+sentinel:// and redis+cluster://".to_owned());
        }
        let database = match path.next() {
            None => 0,
            Some(number) => number.parse().map_err(|_| "the database is a number")?,
        };
        if kind == Kind::Cluster && database != 0 {
            return Err("a cluster has no databases".to_owned());
        }
        let (user, password) = login
            .map(user_and_password)
            .transpose()?
            .unwrap_or_default();
        Ok(Address {
            kind,
            hosts,
            user,
            password,
            database,
        })
    }

    pub async fn connect(&self) -> Result<Arc<dyn Commands>, RedisError> {
        match &self.kind {
            Kind::Server => {
                let (host, port) = &self.hosts[0];
                let client = Client::open(self.node(host, *port)?)?;
                Ok(Arc::new(Single::new(Source::Server(Box::new(client)))))
            }
            Kind::Sentinel(name) => {
                let sentinels = Arc::new(Mutex::new(self.sentinels(name)?));
                Ok(Arc::new(Single::new(Source::Sentinel(sentinels))))
            }
            Kind::Cluster => self.cluster().await,
        }
    }

    fn sentinels(&self, name: &str) -> Result<redis::sentinel::SentinelClient, RedisError> {
        let hosts = self.hosts.iter();
        let hosts = hosts.map(|(host, port)| ConnectionAddr::Tcp(host.clone(), *port));
        let mut builder = SentinelClientBuilder::new(hosts, name, SentinelServerType::Master)?
            .set_client_to_redis_db(self.database)
            .set_client_to_redis_tcp_settings(tcp());
        if let Some(user) = &self.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password);
        }
        builder.build()
    }

    /// The client would repeat scripts by itself: it must not.
    async fn cluster(&self) -> Result<Arc<dyn Commands>, RedisError> {
        let nodes: Vec<_> = self
            .hosts
            .iter()
            .map(|(host, port)| self.node(host, *port))
            .collect::<Result<_, _>>()?;
        let client = ClusterClientBuilder::new(nodes.clone())
            .retries(0)
            .connection_timeout(RESPONSE_WAIT_MAX)
            .response_timeout(RESPONSE_WAIT_MAX)
            .tcp_settings(tcp())
            .build()?;
        let connection = client.get_async_connection().await?;
        let nodes = nodes
            .into_iter()
            .map(Client::open)
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(Cluster::new(connection, nodes)))
    }

    fn node(&self, host: &str, port: u16) -> Result<ConnectionInfo, RedisError> {
        let address = ConnectionAddr::Tcp(host.to_owned(), port);
        let info = address.into_connection_info()?;
        let mut settings = info.redis_settings().clone().set_db(self.database);
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        Ok(info.set_redis_settings(settings).set_tcp_settings(tcp()))
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis at {:?}", self.hosts)
    }
}

/// Without Nagle's delay.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn host_and_port(text: &str, usual: u16) -> Result<(String, u16), String> {
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| "not a host and port")?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or("a host is missing")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), url.port().unwrap_or(usual)))
}

type Login = (Option<String>, Option<String>);

/// As in any URL, with percent signs decoded.
fn user_and_password(login: &str) -> Result<Login, String> {
    let decoded = |text: &str| {
        let bytes = percent_decoded(text.as_bytes()).ok_or("a percent sign stands for nothing")?;
        String::from_utf8(bytes).map_err(|_| "not UTF-8")
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let word = |text: &str| match text {
        "" => Ok(None),
        text => decoded(text).map(Some).map_err(str::to_owned),
    };
    Ok((word(user)?, word(password)?))
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        bytes.push(u8::try_from(digit()? << 4 | digit()?).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_hosts_users_and_databases() {
        let one = Address::parse("redis://me:p%40ss@db.example/3").unwrap();
        assert_eq!(one.hosts, [("db.example".to_owned(), 6379)]);
        assert_eq!(one.user.as_deref(), Some("me"));
        assert_eq!(one.password.as_deref(), Some("p@ss"));
        assert_eq!(one.database, 3);
        let many = Address::parse("redis+cluster://:pw@a:1,[::1]:2").unwrap();
        assert_eq!(many.kind, Kind::Cluster);
        assert_eq!(many.hosts, [("a".to_owned(), 1), ("::1".to_owned(), 2)]);
        assert_eq!(many.user, None);
        assert!(Address::parse("rediss://host").is_err());
        let watched = Address::parse("redis+sentinel://a,b:5/main/2").unwrap();
        assert_eq!(watched.kind, Kind::Sentinel("main".to_owned()));
        assert_eq!(watched.hosts[0].1, 26379);
        assert_eq!(watched.database, 2);
        assert!(!format!("{one:?}").contains("p@ss"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "redis",
            "http://a",
            "redis://",
            "redis://a,b",
            "redis://a/x",
            "redis+sentinel://a",
            "redis+cluster://a/1",
            "redis://u:%4@a",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
