//! Who is behind a proxy: `Forwarded` (RFC 7239) and `X-Forwarded-*`, believed only from networks that
//! the operator trusts.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The client as trusted proxies tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    /// `https://host`, when a trusted proxy names both the scheme and the host that were asked for.
    pub origin: Option<String>,
}

impl Client {
    pub fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        if !is_trusted(peer, trusted) {
            return Client {
                address: peer,
                origin: None,
            };
        }
        let hops = Hops::of(headers);
        // Each proxy appends whom it heard from: from the right, the first that is not ours is the client.
        let mut address = peer;
        for hop in hops.addresses.iter().rev() {
            let Some(hop) = hop else { break };
            address = *hop;
            if !is_trusted(address, trusted) {
                break;
            }
        }
        Client {
            address,
            origin: hops.origin,
        }
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

#[derive(Debug, Default)]
struct Hops {
    /// Client first; none where a proxy hides whom it heard from.
    addresses: Vec<Option<IpAddr>>,
    origin: Option<String>,
}

impl Hops {
    fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key("forwarded") {
            return Hops::standard(headers);
        }
        let addresses = elements(headers, "x-forwarded-for").map(|element| node(&element));
        let last = |name: &str| elements(headers, name).last();
        Hops {
            addresses: addresses.collect(),
            origin: last("x-forwarded-proto")
                .zip(last("x-forwarded-host"))
                .and_then(|(scheme, host)| origin(&scheme, &host)),
        }
    }

    fn standard(headers: &HeaderMap) -> Self {
        let mut hops = Hops::default();
        for element in elements(headers, "forwarded") {
            let value_of = |wanted: &str| {
                let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
                pairs
                    .filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                    .map(|(_, value)| value.trim().trim_matches('"').to_owned())
                    .next()
            };
            hops.addresses.push(value_of("for").and_then(|v| node(&v)));
            hops.origin = value_of("proto")
                .zip(value_of("host"))
                .and_then(|(scheme, host)| origin(&scheme, &host));
        }
        hops
    }
}

fn elements<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + use<'a> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',').map(|element| element.trim().to_owned()))
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1`.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let address = address.or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    Some(address.ok()?.to_canonical())
}

fn origin(scheme: &str, host: &str) -> Option<String> {
    let scheme = ["http", "https"]
        .into_iter()
        .find(|s| scheme.eq_ignore_ascii_case(s))?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    (!host.is_empty() && host.bytes().all(legal)).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn client(peer: &str, headers: &[(&'static str, &'static str)]) -> Client {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let headers = headers.iter().map(|&(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        });
        let headers = headers.collect();
        Client::of(peer.parse().unwrap(), &headers, &trusted)
    }

    fn address(peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        client(peer, headers).address.to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let said = [("x-forwarded-for", "203.0.113.9")];
        assert_eq!(address("192.0.2.1", &said), "192.0.2.1");
        assert_eq!(address("10.0.0.1", &said), "203.0.113.9");
        assert_eq!(address("::ffff:10.0.0.1", &said), "203.0.113.9");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_claims_of_itself_is_passed_over() {
        let forged = [("x-forwarded-for", "1.2.3.4, 203.0.113.9, 10.0.0.7")];
        assert_eq!(address("10.0.0.1", &forged), "203.0.113.9");
        let hidden = [("forwarded", "for=1.2.3.4, for=_hidden, for=\"10.0.0.7:99\"")];
        assert_eq!(address("10.0.0.1", &hidden), "10.0.0.7");
        let six = [("forwarded", "for=\"[2001:db8::1]:443\";proto=https")];
        assert_eq!(address("::1", &six), "2001:db8::1");
    }

    #[test]
    fn the_origin_needs_scheme_and_host() {
        let both = [("forwarded", "for=203.0.113.9;proto=HTTPS;host=jobs.example")];
        let origin = client("10.0.0.1", &both).origin;
        assert_eq!(origin.as_deref(), Some("https://jobs.example"));
        assert_eq!(client("192.0.2.1", &both).origin, None);
        let bad = [("x-forwarded-proto", "https"), ("x-forwarded-host", "a/b")];
        assert_eq!(client("10.0.0.1", &bad).origin, None);
    }
}
