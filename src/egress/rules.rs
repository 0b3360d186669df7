//! Which addresses requests may go to.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use url::{Host, Url};

use super::address;

/// The Internet, and what the operator allows besides. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    allowed: Arc<[Permit]>,
}

/// An exception of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Permit {
    Network(IpNet),
    /// This name, wherever it leads.
    Name(String),
    /// Every name that ends so: `.internal`.
    Below(String),
}

/// Why an address is refused; the text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("is no URL")]
    Malformed,
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("must not hold a user name or a password")]
    UserInfo,
    #[error("names no host")]
    NoHost,
    #[error("leads to an address that is not on the Internet; the operator can allow it")]
    NotPublic,
}

/// The longest URL that is read, in bytes.
pub const URL_LENGTH_MAX: usize = 2048;

impl Rules {
    /// `allow` lists addresses, networks (`10.0.0.0/8`), names and beginnings of names (`*.internal`).
    pub fn parse<'a>(allow: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let permits: Result<Vec<_>, _> = allow.into_iter().map(Permit::parse).collect();
        Ok(Rules {
            allowed: permits?.into(),
        })
    }

    /// A URL that requests may be sent to, as far as it tells: names are resolved only when they are.
    pub fn url(&self, text: &str) -> Result<Url, Refusal> {
        if text.len() > URL_LENGTH_MAX {
            return Err(Refusal::Malformed);
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => Refusal::NoHost,
            _ => Refusal::Malformed,
        })?;
        self.check(&url)?;
        Ok(url)
    }

    pub fn check(&self, url: &Url) -> Result<(), Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        // The parser has brought all spellings of an address into one: decimal, octal, hexadecimal, short.
        let address = match url.host() {
            None => return Err(Refusal::NoHost),
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            Some(Host::Domain(name)) if is_local(name) && !self.allows_name(name) => {
                return Err(Refusal::NotPublic);
            }
            Some(Host::Domain(_)) => return Ok(()),
        };
        self.check_address(address)
    }

    /// What `name` was resolved to. One address that is refused is enough: what answers so means no good.
    pub fn check_resolved(&self, name: &str, addresses: &[IpAddr]) -> Result<(), Refusal> {
        if self.allows_name(name) {
            return Ok(());
        }
        addresses
            .iter()
            .try_for_each(|address| self.check_address(*address))
    }

    fn check_address(&self, address: IpAddr) -> Result<(), Refusal> {
        let allowed = |permit: &Permit| match permit {
            Permit::Network(network) => address::is_within(address, network),
            Permit::Name(_) | Permit::Below(_) => false,
        };
        match address::is_public(address) || self.allowed.iter().any(allowed) {
            true => Ok(()),
            false => Err(Refusal::NotPublic),
        }
    }

    fn allows_name(&self, name: &str) -> bool {
        let name = plain(name);
        self.allowed.iter().any(|permit| match permit {
            Permit::Network(_) => false,
            Permit::Name(allowed) => *allowed == name,
            Permit::Below(ending) => name.ends_with(ending.as_str()) && name.len() > ending.len(),
        })
    }
}

impl Permit {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Permit::Network(network));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Permit::Network(address.into()));
        }
        let (wild, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || !b.is_ascii();
        let host = name.bytes().all(legal).then(|| Host::parse(name));
        match host {
            Some(Ok(Host::Domain(name))) if wild => Ok(Permit::Below(format!(".{}", plain(&name)))),
            Some(Ok(Host::Domain(name))) => Ok(Permit::Name(plain(&name))),
            _ => Err(format!(
                "{text:?} is no address, network (10.0.0.0/8), name or *.name"
            )),
        }
    }
}

/// Names of this machine (RFC 6761), whatever they are resolved to.
fn is_local(name: &str) -> bool {
    let name = plain(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(
        last,
        "localhost" | "localdomain" | "ip6-localhost" | "ip6-loopback"
    )
}

/// Without the dot of a complete name, in lower case.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str]) -> Rules {
        Rules::parse(allow.iter().copied()).unwrap()
    }

    #[test]
    fn every_spelling_of_a_local_address_is_refused() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "１２７.０.０.１",
            "127。0。0。1",
            "0",
            "0.0.0.0",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "10.1.2.3",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:169.254.169.254]",
            "[0:0:0:0:0:ffff:a9fe:a9fe]",
            "[64:ff9b::10.0.0.1]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "localhost.localdomain",
            "ip6-localhost",
            "ⓛocalhost",
        ] {
            let url = format!("http://{host}:8080/x");
            assert_eq!(rules(&[]).url(&url), Err(Refusal::NotPublic), "{url}");
        }
    }

    #[test]
    fn what_is_no_plain_web_address_is_refused() {
        let refused = |text: &str| rules(&["127.0.0.1"]).url(text).unwrap_err();
        for text in [
            "ftp://a.example/",
            "file:///etc/passwd",
            "gopher://a.example",
            "javascript:alert(1)",
            "data:,x",
            "unix:/x",
        ] {
            assert_eq!(refused(text), Refusal::Scheme, "{text}");
        }
        for text in [
            "http://user@a.example/",
            "http://:p@a.example/",
            "http://a.example@127.0.0.1/",
            "http://a%40b@a.example",
        ] {
            assert_eq!(refused(text), Refusal::UserInfo, "{text}");
        }
        for text in [
            "",
            "a.example",
            "/x",
            "http://a b/",
            "http://[::1",
            "http://256.0.0.1/",
            "http://1.2.3.4.5/",
            "http://a.example:99999/",
        ] {
            assert_eq!(refused(text), Refusal::Malformed, "{text}");
        }
        assert_eq!(refused("http://"), Refusal::NoHost);
        assert_eq!(
            refused(&format!("http://a.example/{}", "x".repeat(3000))),
            Refusal::Malformed
        );
    }

    #[test]
    fn the_internet_is_reached() {
        for text in [
            "http://a.example",
            "https://8.8.8.8:8443/x?y#z",
            "HTTP://[2606:4700::1111]/",
            "http://notlocalhost.example",
            "http://localhost.example",
        ] {
            assert!(rules(&[]).url(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_operator_allows_addresses_networks_and_names() {
        let allowing = rules(&[
            "127.0.0.1",
            "10.0.0.0/8",
            "*.internal",
            "Hooks.Example",
            "localhost",
        ]);
        for text in [
            "http://127.0.0.1",
            "http://127.1",
            "http://[::ffff:127.0.0.1]",
            "http://10.9.8.7",
            "http://localhost:1",
        ] {
            assert!(allowing.url(text).is_ok(), "{text}");
        }
        for text in [
            "http://127.0.0.2",
            "http://[::1]",
            "http://192.168.0.1",
            "http://a.localhost",
        ] {
            assert_eq!(allowing.url(text), Err(Refusal::NotPublic), "{text}");
        }
        let here = [IpAddr::from([192, 168, 0, 1])];
        for (name, reached) in [
            ("a.internal", true),
            ("a.b.INTERNAL.", true),
            ("hooks.example", true),
            ("internal", false),
            ("ainternal", false),
            ("a.hooks.example", false),
        ] {
            assert_eq!(
                allowing.check_resolved(name, &here).is_ok(),
                reached,
                "{name}"
            );
        }
        for text in [
            "",
            "*",
            "*.",
            "http://a",
            "a:80",
            "10.0.0.0/33",
            "a b",
            "*.*.a",
        ] {
            assert!(Rules::parse([text]).is_err(), "{text}");
        }
    }

    #[test]
    fn one_refused_address_among_many_is_enough() {
        let resolved = |texts: &[&str]| {
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            rules(&["10.0.0.1"]).check_resolved("rebinding.example", &addresses)
        };
        assert_eq!(resolved(&["8.8.8.8", "10.0.0.1"]), Ok(()));
        assert_eq!(resolved(&["8.8.8.8", "127.0.0.1"]), Err(Refusal::NotPublic));
        assert_eq!(resolved(&["::1"]), Err(Refusal::NotPublic));
    }
}
