//! Which requests say well enough whom they are for (RFC 9112, section 3.2).

use axum::http::uri::Authority;
use axum::http::{Request, Version, header};

/// Whether a request has one `Host` header with a host and at most a port. HTTP/1.0 may go without.
pub fn is_named<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() == Version::HTTP_10,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

fn is_host(value: &[u8]) -> bool {
    // Empty stands for a target without an authority.
    value.is_empty()
        || (!value.contains(&b'@')
            && Authority::try_from(value).is_ok_and(|a| !a.host().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(version: Version, hosts: &[&str]) -> bool {
        let mut request = Request::builder().version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        is_named(&request.body(()).unwrap())
    }

    #[test]
    fn exactly_one_well_formed_host() {
        for good in ["localhost", "a.example:8080", "[::1]:80", ""] {
            assert!(named(Version::HTTP_11, &[good]), "{good}");
        }
        for bad in ["a b", "user@host", "a,b", "a/b", ":80"] {
            assert!(!named(Version::HTTP_11, &[bad]), "{bad}");
        }
        assert!(!named(Version::HTTP_11, &["a", "b"]));
        assert!(!named(Version::HTTP_11, &["a", "a"]));
        assert!(!named(Version::HTTP_11, &[]));
        assert!(named(Version::HTTP_10, &[]));
    }
}
