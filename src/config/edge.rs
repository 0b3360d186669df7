//! How the service is reached and seen from outside.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use url::Url;

use super::error::ConfigError;
use super::layer::{Given, Layers};
use super::switch;
use crate::http::api::{AuthMode, Edge};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

pub(super) fn listen(layers: &Layers) -> Result<SocketAddr, ConfigError> {
    let address = |text: &str| match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::new(LISTEN.ip(), port.parse().ok()?)),
        None => text.parse().ok(),
    };
    match layers.get("listen") {
        Some(given) => given.read("an address and port, such as 127.0.0.1:8080", address),
        None => Ok(LISTEN),
    }
}

pub(super) fn resolve(layers: &Layers, listen: SocketAddr) -> Result<Edge, ConfigError> {
    Ok(Edge {
        auth: auth(layers, listen)?,
        cors_origins: each(layers, "cors_origins", origin)?,
        base_path: base_path(layers)?,
        public_url: public_url(layers)?,
        trusted_proxies: each(layers, "trusted_proxies", network)?,
    })
}

/// Off is for the machine itself: whoever reaches the address may do everything.
fn auth(layers: &Layers, listen: SocketAddr) -> Result<AuthMode, ConfigError> {
    let insecure = layers.get("insecure").map(switch).transpose()?;
    let local = listen.ip().is_loopback();
    let Some(given) = layers.get("auth") else {
        return Ok(match local {
            true => AuthMode::Off,
            false => AuthMode::Keys,
        });
    };
    match given.text.trim() {
        "keys" => Ok(AuthMode::Keys),
        "off" if local || insecure == Some(true) => Ok(AuthMode::Off),
        "off" => Err(given.refuse(&format!(
            "without authentication, everyone who reaches {listen} may do everything; \
             if that is wanted, set JUSTONCE_INSECURE=true"
        ))),
        "jwt" => Err(given.refuse("jwt comes with a later release; the modes are off and keys")),
        _ => Err(given.refuse("the modes are off and keys")),
    }
}

/// The items of a list that is separated by commas.
fn each<T>(
    layers: &Layers,
    key: &'static str,
    read: fn(&Given, &str) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let Some(given) = layers.get(key) else {
        return Ok(Vec::new());
    };
    let items = given.text.split(',').map(str::trim);
    items
        .filter(|item| !item.is_empty())
        .map(|item| read(given, item))
        .collect()
}

/// An origin as browsers write it: scheme, host, and the port unless it is the usual one.
fn origin(given: &Given, item: &str) -> Result<String, ConfigError> {
    if item == "*" {
        return Err(given.refuse("origins are named one by one; * is not one"));
    }
    let exact = Url::parse(item)
        .ok()
        .map(|url| url.origin().ascii_serialization());
    if exact.as_deref() == Some(item) {
        return Ok(item.to_owned());
    }
    Err(given.refuse(&format!(
        "{item:?} is no origin, such as https://app.example"
    )))
}

fn network(given: &Given, item: &str) -> Result<IpNet, ConfigError> {
    let network = item.parse().or_else(|_| item.parse().map(IpAddr::into));
    network.map_err(|_: std::net::AddrParseError| {
        given.refuse(&format!("{item:?} is no network, such as 10.0.0.0/8"))
    })
}

/// Empty, or `/prefix` without a slash at its end.
fn base_path(layers: &Layers) -> Result<String, ConfigError> {
    let Some(given) = layers.get("base_path") else {
        return Ok(String::new());
    };
    let path = given.text.trim().trim_end_matches('/');
    let part_is_plain = |part: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        !matches!(part, "" | "." | "..") && part.bytes().all(legal)
    };
    let plain = match path.strip_prefix('/') {
        Some(parts) => parts.split('/').all(part_is_plain),
        None => path.is_empty(),
    };
    match plain {
        true => Ok(path.to_owned()),
        false => Err(given.refuse(&format!("{:?} is no path, such as /justonce", given.text))),
    }
}

fn public_url(layers: &Layers) -> Result<Option<Url>, ConfigError> {
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    layers
        .get("public_url")
        .map(|given| {
            let expected = "an http(s) URL without query, such as https://jobs.example";
            given.read(expected, |text| Url::parse(text).ok().filter(plain))
        })
        .transpose()
}
