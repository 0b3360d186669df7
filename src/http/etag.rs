//! Entity tags (RFC 9110 section 8.8.3) and the requests that ask by them.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::unquoted;
use crate::domain::digest::Sha256Digest;

/// A strong entity tag, with its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// 128 bits of the body's SHA-256: the same bytes, the same tag, on every replica.
    pub fn of_body(body: &[u8]) -> Self {
        let digest = Sha256Digest::of(body);
        let short = URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..16]);
        ETag(format!("\"{short}\""))
    }

    pub fn of_digest(sha256: &Sha256Digest) -> Self {
        ETag(format!("\"{sha256}\""))
    }

    /// Whether the client has this representation already (`If-None-Match`, compared weakly as
    /// section 13.1.2 says).
    pub fn is_known_by(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(header::IF_NONE_MATCH).iter();
        let mut texts = values.filter_map(|value| value.to_str().ok());
        texts.any(|text| {
            let mut tags = unquoted::split(text, ',').into_iter();
            tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.0)
        })
    }

    pub fn value(&self) -> HeaderValue {
        HeaderValue::try_from(&self.0).unwrap_or(HeaderValue::from_static("\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_when_any_of_the_sent_ones_is_the_same() {
        let tag = ETag::of_body(b"body");
        assert_eq!(tag, ETag::of_body(b"body"));
        assert_ne!(tag, ETag::of_body(b"Body"));
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
            tag.is_known_by(&headers)
        };
        assert!(known(&tag.0));
        assert!(known(&format!("\"a,b\", W/{}", tag.0)));
        assert!(known("*"));
        assert!(!known(tag.0.trim_matches('"')));
        assert!(!known("\"other\""));
        assert!(!tag.is_known_by(&HeaderMap::new()));
    }
}
