//! What submissions have in common that are in conflict with each other.

use std::collections::BTreeSet;

use super::digest::Sha256Digest;
use super::fingerprint::{Content, Fields, Fingerprint, FingerprintScope};
use super::json;

/// SHA-256 over user, task type or group, and the values that `dedup.by` points at, in whatever order; or over the
/// fingerprint. The version of the type is no part of the former: newer work takes the place of older work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matching(Sha256Digest);

impl Matching {
    /// Pointers of one `dedup.by` at most.
    pub const POINTERS_MAX: usize = 16;

    pub const fn from_digest(digest: Sha256Digest) -> Self {
        Matching(digest)
    }

    pub fn digest(&self) -> &Sha256Digest {
        &self.0
    }

    pub fn of_content(fingerprint: &Fingerprint) -> Self {
        let mut fields = Fields::of(b"justonce match of content v1");
        fields.add(fingerprint.digest().as_bytes());
        Matching(fields.finish())
    }

    /// A value that is not there is none, and not null.
    pub fn of_values(scope: &FingerprintScope, content: &Content<'_>, by: &[String]) -> Self {
        let mut fields = Fields::of(b"justonce match of values v1");
        fields.add(content.user.as_str().as_bytes());
        let (kind, name) = scope.within(content);
        fields.add(kind.as_bytes()).add(name.as_bytes());
        let by: BTreeSet<&String> = by.iter().collect();
        for pointer in by {
            fields.add(pointer.as_bytes());
            match content.params.pointer(pointer) {
                Some(value) => fields.add(b"is").add(&json::canonical(value)),
                None => fields.add(b"absent"),
            };
        }
        Matching(fields.finish())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::principal::UserId;

    fn of(user: &str, params: &Value, by: &[&str]) -> Matching {
        let user = UserId::parse(user).unwrap();
        let by: Vec<String> = by.iter().map(|&pointer| pointer.to_owned()).collect();
        let content = Content {
            user: &user,
            task_type: "t",
            group: None,
            run_at: None,
            params,
            files: &[],
        };
        Matching::of_values(&FingerprintScope::Type, &content, &by)
    }

    #[test]
    fn only_the_values_that_are_pointed_at_count() {
        let base = of("u", &json!({"doc": 1, "text": "a"}), &["/doc"]);
        assert_eq!(of("u", &json!({"doc": 1.0, "text": "b"}), &["/doc"]), base);
        assert_ne!(of("v", &json!({"doc": 1}), &["/doc"]), base);
        assert_ne!(of("u", &json!({"doc": 2}), &["/doc"]), base);
        assert_ne!(of("u", &json!({"other": 1}), &["/other"]), base);
    }

    #[test]
    fn the_order_of_pointers_does_not_count() {
        let params = json!({"a": 1, "b": 2});
        let base = of("u", &params, &["/a", "/b"]);
        assert_eq!(of("u", &params, &["/b", "/a"]), base);
        assert_eq!(of("u", &params, &["/a", "/b", "/a"]), base);
        assert_ne!(of("u", &params, &["/a"]), base);
    }

    #[test]
    fn a_value_that_is_not_there_is_not_null() {
        let by = ["/a", "/b"];
        let all = [
            of("u", &json!({}), &by),
            of("u", &json!({"a": null}), &by),
            of("u", &json!({"b": null}), &by),
            of("u", &json!({"a": null, "b": null}), &by),
            of("u", &json!({"a": "absent"}), &by),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }
}
