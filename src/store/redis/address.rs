//! Where Redis is: `redis://`, `redis+sentinel://` and `redis+cluster://`, or `rediss` for encrypted
//! connections.
//!
//! User and password are those of the servers. Sentinels are asked without any, unless the address names
//! theirs: `redis+sentinel://user:password@host,host/name?sentinel_user=…&sentinel_password=…`.

use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisError, TlsMode};
use tokio::sync::Mutex;
use url::Url;

use super::link::{self, Cluster, Commands, Single, Source};
use super::trust::Trust;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// A connection on which nothing was heard for so long is probed.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const FORMS: &str = "the forms are redis://, redis+sentinel:// and redis+cluster://, \
                     or rediss with the same ends for encrypted connections";

/// A parsed address; shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    kind: Kind,
    hosts: Vec<(String, u16)>,
    login: Login,
    sentinel_login: Login,
    database: i64,
    /// None: connections are not encrypted.
    trust: Option<Trust>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Server,
    /// Their name for the servers.
    Sentinel(String),
    Cluster,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Login {
    user: Option<String>,
    password: Option<String>,
}

impl Address {
    /// The error is for the operator, and does not repeat the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("the form is redis://host")?;
        let (scheme, trust) = match scheme.strip_prefix("rediss") {
            Some(kind) => (format!("redis{kind}"), Some(Trust::default())),
            None => (scheme.to_owned(), None),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut path = path.split('/').filter(|part| !part.is_empty());
        let (kind, port) = match scheme.as_str() {
            "redis" => (Kind::Server, PORT),
            "redis+cluster" => (Kind::Cluster, PORT),
            "redis+sentinel" => {
                let name = path
                    .next()
                    .ok_or("the form is redis+sentinel://host,host/name")?;
                (Kind::Sentinel(name.to_owned()), SENTINEL_PORT)
            }
            _ => return Err(FORMS.to_owned()),
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
        let sentinel_login = Login::of_sentinels(query)?;
        if sentinel_login != Login::default() && !matches!(kind, Kind::Sentinel(_)) {
            return Err("sentinel_user and sentinel_password are for redis+sentinel://".to_owned());
        }
        Ok(Address {
            kind,
            hosts,
            login: login.map(Login::parse).transpose()?.unwrap_or_default(),
            sentinel_login,
            database,
            trust,
        })
    }

    /// Believes these certificates instead of those of the system.
    pub fn trusting(mut self, trust: Trust) -> Result<Self, String> {
        match &mut self.trust {
            None => Err("only connections of rediss:// have certificates to trust".to_owned()),
            Some(believed) => {
                *believed = trust;
                Ok(self)
            }
        }
    }

    pub async fn connect(&self) -> Result<Arc<dyn Commands>, RedisError> {
        if self.trust.is_some() {
            crate::cryptography::choose();
        }
        match &self.kind {
            Kind::Server => {
                let (host, port) = &self.hosts[0];
                let client = self.client(host, *port)?;
                Ok(Arc::new(Single::new(Source::Server(Box::new(client)))))
            }
            Kind::Sentinel(name) => {
                let sentinels = Arc::new(Mutex::new(self.sentinels(name)?));
                Ok(Arc::new(Single::new(Source::Sentinel(sentinels))))
            }
            Kind::Cluster => self.cluster().await,
        }
    }

    fn sentinels(&self, name: &str) -> Result<SentinelClient, RedisError> {
        let hosts = self.hosts.iter();
        let hosts = hosts.map(|(host, port)| self.place(host, *port));
        let mut builder = SentinelClientBuilder::new(hosts, name, SentinelServerType::Master)?
            .set_client_to_redis_db(self.database)
            .set_client_to_redis_tcp_settings(tcp())
            .set_client_to_sentinel_tcp_settings(tcp());
        if let Some(user) = &self.login.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.login.password {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = &self.sentinel_login.user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = &self.sentinel_login.password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let Some(trust) = &self.trust {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(trust.certificates())
                .set_client_to_sentinel_certificates(trust.certificates());
        }
        builder.build()
    }

    async fn cluster(&self) -> Result<Arc<dyn Commands>, RedisError> {
        let nodes: Vec<_> = self
            .hosts
            .iter()
            .map(|(host, port)| self.client(host, *port))
            .collect::<Result<_, _>>()?;
        let infos = nodes.iter().map(|node| node.get_connection_info().clone());
        let mut builder = link::cluster(infos).tcp_settings(tcp());
        if let Some(trust) = &self.trust {
            builder = builder.certs(trust.certificates());
        }
        let client = builder.build()?;
        Ok(Arc::new(Cluster::connect(client, nodes).await?))
    }

    fn client(&self, host: &str, port: u16) -> Result<Client, RedisError> {
        let info = self.place(host, port).into_connection_info()?;
        let mut settings = info.redis_settings().clone().set_db(self.database);
        if let Some(user) = &self.login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.login.password {
            settings = settings.set_password(password);
        }
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
        match &self.trust {
            None => Client::open(info),
            Some(trust) => Client::build_with_tls(info, trust.certificates()),
        }
    }

    fn place(&self, host: &str, port: u16) -> ConnectionAddr {
        let host = host.to_owned();
        match self.trust {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis at {:?}", self.hosts)
    }
}

/// Without Nagle's delay, and with probes of silent connections.
fn tcp() -> TcpSettings {
    let probes = TcpKeepalive::new().with_time(PROBE_EVERY);
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(probes.with_interval(PROBE_EVERY))
}

fn host_and_port(text: &str, usual: u16) -> Result<(String, u16), String> {
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| "not a host and port")?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or("a host is missing")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), url.port().unwrap_or(usual)))
}

impl Login {
    /// `user:password`, as in any URL, with percent signs decoded.
    fn parse(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Ok(Login {
            user: word(user)?,
            password: word(password)?,
        })
    }

    /// `sentinel_user=…&sentinel_password=…`
    fn of_sentinels(query: &str) -> Result<Self, String> {
        let mut login = Login::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sentinel_user", user)) => login.user = word(user)?,
                Some(("sentinel_password", password)) => login.password = word(password)?,
                _ => return Err("after ? may be sentinel_user and sentinel_password".to_owned()),
            }
        }
        Ok(login)
    }
}

fn word(text: &str) -> Result<Option<String>, String> {
    let bytes = percent_decoded(text.as_bytes()).ok_or("a percent sign stands for nothing")?;
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    Ok(Some(text).filter(|text| !text.is_empty()))
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
        assert_eq!(one.login, login("me", "p@ss"));
        assert_eq!(one.database, 3);
        let many = Address::parse("redis+cluster://:pw@a:1,[::1]:2").unwrap();
        assert_eq!(many.kind, Kind::Cluster);
        assert_eq!(many.hosts, [("a".to_owned(), 1), ("::1".to_owned(), 2)]);
        assert_eq!(many.login, login("", "pw"));
        let watched = Address::parse("redis+sentinel://a,b:5/main/2").unwrap();
        assert_eq!(watched.kind, Kind::Sentinel("main".to_owned()));
        assert_eq!(watched.hosts[0].1, 26379);
        assert_eq!(watched.database, 2);
        assert!(!format!("{one:?}").contains("p@ss"));
    }

    #[test]
    fn sentinels_have_a_login_of_their_own() {
        let text = "redis+sentinel://me:pw@a/main?sentinel_user=s&sentinel_password=p%26q+r";
        let address = Address::parse(text).unwrap();
        assert_eq!(address.login, login("me", "pw"));
        assert_eq!(address.sentinel_login, login("s", "p&q+r"));
        let without = Address::parse("redis+sentinel://me:pw@a/main").unwrap();
        assert_eq!(without.sentinel_login, Login::default());
    }

    #[test]
    fn two_s_stand_for_encryption() {
        for ends in ["://a", "+sentinel://a/main", "+cluster://a"] {
            let plain = Address::parse(&format!("redis{ends}")).unwrap();
            let encrypted = Address::parse(&format!("rediss{ends}")).unwrap();
            assert_eq!(plain.kind, encrypted.kind);
            assert!(plain.trust.is_none() && encrypted.trust.is_some());
            assert!(plain.trusting(Trust::default()).is_err());
            assert!(encrypted.trusting(Trust::default()).is_ok());
        }
    }

    fn login(user: &str, password: &str) -> Login {
        Login::parse(&format!("{user}:{}", password.replace('@', "%40"))).unwrap()
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
            "redis://a?tls=no",
            "redis://a?sentinel_user=me",
            "redisss://a",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
