//! `Content-Digest` and `Repr-Digest` (RFC 9530): what a client says its bytes hash to.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::domain::digest::Sha256Digest;
use crate::http::code::Code;
use crate::http::problem::Problem;
use crate::http::unquoted;

pub const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// Bodies are taken without content codings only, so that both fields name the same bytes.
const FIELDS: [(HeaderName, &str); 2] = [
    (HeaderName::from_static("content-digest"), "Content-Digest"),
    (HeaderName::from_static("repr-digest"), "Repr-Digest"),
];

const MISMATCHED: &str = "https://iana.org/assignments/http-problem-types#digest-mismatched-values";

/// What the digest fields of one request say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    claims: Vec<Claim>,
    /// Whether there are digests by other algorithms; they are not looked at.
    others: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    sha256: Sha256Digest,
    field: &'static str,
}

impl Claims {
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut claims = Claims::default();
        for (name, field) in FIELDS {
            let values = headers.get_all(&name).iter();
            let texts: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
            let read = texts.and_then(|texts| dictionary(&texts.join(",")));
            let Some(members) = read else {
                return Err(malformed(field));
            };
            let mut newest = None;
            for (algorithm, bytes) in members {
                match algorithm.as_str() {
                    // Of a key that occurs twice, the last one counts (RFC 9651 section 4.2.2).
                    "sha-256" => newest = Some(bytes),
                    _ => claims.others = true,
                }
            }
            let Some(bytes) = newest else { continue };
            let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| malformed(field))?;
            let sha256 = Sha256Digest::from_bytes(bytes);
            claims.claims.push(Claim { sha256, field });
        }
        Ok(claims)
    }

    /// The digest that all fields agree on.
    pub fn sha256(&self) -> Option<Sha256Digest> {
        let first = self.claims.first()?.sha256;
        let agreed = self.claims.iter().all(|claim| claim.sha256 == first);
        agreed.then_some(first)
    }

    /// The problem names what the client sent, never what its bytes hash to.
    pub fn verify(&self, actual: &Sha256Digest) -> Result<(), Problem> {
        let wrong = self.claims.iter().filter(|claim| claim.sha256 != *actual);
        let wrong: Vec<Value> = wrong.map(Claim::document).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            Code::DigestMismatch,
            "The bytes that arrived are not those that the digest names.",
        )
        .with_registered_type(MISMATCHED)
        .with("mismatched_digests", wrong))
    }

    /// What to ask for next time, when none of the digests could be verified.
    pub fn wanted(&self) -> Option<HeaderValue> {
        let unverified = self.others && self.claims.is_empty();
        unverified.then_some(HeaderValue::from_static("sha-256=10"))
    }
}

impl Claim {
    fn document(&self) -> Value {
        let provided = STANDARD.encode(self.sha256.as_bytes());
        json!({"algorithm": "sha-256", "provided_digest": format!(":{provided}:"), "header": self.field})
    }
}

fn malformed(field: &str) -> Problem {
    let detail = format!("{field} must be a dictionary of digests, such as sha-256=:<base64>:.");
    Problem::new(Code::InvalidRequest, detail)
}

/// An RFC 9651 Dictionary whose values are Byte Sequences; their parameters are read and ignored.
fn dictionary(text: &str) -> Option<Vec<(String, Vec<u8>)>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    unquoted::split(text, ',').into_iter().map(member).collect()
}

fn member(text: &str) -> Option<(String, Vec<u8>)> {
    let item = unquoted::split(text, ';').into_iter().next()?;
    let (key, value) = item.split_once('=')?;
    let encoded = value.strip_prefix(':')?.strip_suffix(':')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    is_key(key).then(|| (key.to_owned(), bytes))
}

fn is_key(text: &str) -> bool {
    let first = |b: u8| b.is_ascii_lowercase() || b == b'*';
    let later = |b: u8| first(b) || b.is_ascii_digit() || b"_-.".contains(&b);
    text.bytes().next().is_some_and(first) && text.bytes().all(later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(fields: &[(&'static str, &str)]) -> Result<Claims, Problem> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Claims::of(&headers)
    }

    fn sha256(bytes: &[u8]) -> String {
        let encoded = STANDARD.encode(Sha256Digest::of(bytes).as_bytes());
        format!("sha-256=:{encoded}:")
    }

    #[test]
    fn digests_are_read_from_both_fields() {
        let digest = Sha256Digest::of(b"x");
        let both = claims(&[
            ("repr-digest", &sha256(b"x")),
            ("content-digest", &sha256(b"x")),
        ]);
        let both = both.unwrap();
        assert_eq!(both.sha256(), Some(digest));
        assert!(both.verify(&digest).is_ok());
        assert_eq!(both.wanted(), None);
        let with_others = format!("sha-512=:YQ==:;q=1, {}", sha256(b"x"));
        assert_eq!(
            claims(&[("content-digest", &with_others)])
                .unwrap()
                .sha256(),
            Some(digest)
        );
        assert_eq!(claims(&[]).unwrap(), Claims::default());
    }

    #[test]
    fn a_mismatch_tells_nothing_of_what_arrived() {
        let both = claims(&[
            ("repr-digest", &sha256(b"x")),
            ("content-digest", &sha256(b"y")),
        ]);
        let both = both.unwrap();
        assert_eq!(both.sha256(), None);
        let problem = both
            .verify(&Sha256Digest::of(b"z"))
            .expect_err("neither is right");
        let document = problem.document("", None, None);
        assert_eq!(document["type"], MISMATCHED);
        assert_eq!(document["mismatched_digests"].as_array().unwrap().len(), 2);
        assert_eq!(document["mismatched_digests"][1]["header"], "Repr-Digest");
        assert!(
            !document
                .to_string()
                .contains(&Sha256Digest::of(b"z").to_string())
        );
    }

    #[test]
    fn other_algorithms_are_passed_over() {
        let other = claims(&[("content-digest", "sha-512=:YQ==:, md5=:YQ==:")]).unwrap();
        assert_eq!(other.sha256(), None);
        assert_eq!(other.wanted().unwrap(), "sha-256=10");
        assert!(other.verify(&Sha256Digest::of(b"x")).is_ok());
    }

    #[test]
    fn broken_fields_are_refused() {
        for bad in [
            "sha-256",
            "sha-256=abc",
            "sha-256=:YQ==:",
            "sha-256=:Y_==:",
            "SHA-256=:YQ==:",
            "sha-512=:YQ==:,",
            "=:YQ==:",
        ] {
            assert!(claims(&[("content-digest", bad)]).is_err(), "{bad}");
        }
    }
}
