//! Who may start when: what bounds the attempts of a type beyond the room that workers have.

use std::time::Duration;

use serde_json::Value;

use super::digest::Sha256Digest;
use super::json::canonical;

/// Tasks of one user and type that share it never run at the same time. A short hash, so that it fits into records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConcurrencyKey(String);

impl ConcurrencyKey {
    /// By the value at a JSON pointer into params; none where there is no such member.
    pub fn at(pointer: &str, params: &Value) -> Option<Self> {
        params
            .pointer(pointer)
            .map(|value| Self::of(&canonical(value)))
    }

    /// By whatever tells apart what may run at the same time.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digits = Sha256Digest::of(bytes).to_string();
        digits.truncate(Self::LENGTH);
        ConcurrencyKey(digits)
    }

    /// As it stands in a record.
    pub fn parse(digits: &str) -> Option<Self> {
        let is_one = digits.len() == Self::LENGTH && digits.bytes().all(|b| b.is_ascii_hexdigit());
        is_one.then(|| ConcurrencyKey(digits.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Hexadecimal digits.
    const LENGTH: usize = 32;
}

/// So many attempts start within any span of this length, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1, and at most [`Rate::ATTEMPTS_MAX`].
    pub attempts: u32,
    pub span: Duration,
}

impl Rate {
    /// Each start is remembered until its span is over.
    pub const ATTEMPTS_MAX: u32 = 10_000;
    pub const SPAN_MIN: Duration = Duration::from_millis(10);
    /// A day.
    pub const SPAN_MAX: Duration = Duration::from_secs(86_400);
}

/// What a type bounds, for whoever leases its tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Attempts of one user at a time, over all processes and workers outside.
    pub per_user: Option<u32>,
    pub rate: Option<Rate>,
    pub rate_per_user: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_the_value_however_it_is_written() {
        let key = |params: &Value| ConcurrencyKey::at("/a", params);
        let one = key(&json!({"a": {"x": 1, "y": 2}, "b": 1}));
        assert!(one.is_some());
        assert_eq!(key(&json!({"a": {"y": 2, "x": 1.0}})), one);
        assert_ne!(key(&json!({"a": {"x": 1}})), one);
        assert_eq!(key(&json!({"b": 1})), None);
        assert!(key(&json!({"a": null})).is_some());
        let one = one.unwrap();
        assert_eq!(ConcurrencyKey::parse(one.as_str()), Some(one));
        assert_eq!(ConcurrencyKey::parse("xyz"), None);
    }
}
