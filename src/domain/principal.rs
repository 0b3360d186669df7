//! Who asks, and what they may do.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The owner of keys, fingerprints, tasks, files and events: 1 to 128 characters of
/// `[A-Za-z0-9._~:+/=@|-]`, so that it can stand in a log line, a header and a store key as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

impl UserId {
    pub const LENGTH_MAX: usize = 128;

    pub fn parse(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._~:+/=@|-".contains(&b);
        let valid = (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(legal);
        valid.then(|| UserId(text.into()))
    }

    /// The user of requests that name none, while authentication is off.
    pub fn anonymous() -> Self {
        UserId("anonymous".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that a principal may do. Which route needs which is written at the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    Submit,
    Read,
    Cancel,
    Lease,
    Metrics,
    ActAs,
    /// Manages API keys, and includes every other scope.
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 7] = [
        Scope::Submit,
        Scope::Read,
        Scope::Cancel,
        Scope::Lease,
        Scope::Metrics,
        Scope::ActAs,
        Scope::Admin,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Scope::Submit => "submit",
            Scope::Read => "read",
            Scope::Cancel => "cancel",
            Scope::Lease => "lease",
            Scope::Metrics => "metrics",
            Scope::ActAs => "act-as",
            Scope::Admin => "admin",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == text)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub const NONE: Scopes = Scopes(0);
    pub const ALL: Scopes = Scopes(0b111_1111);

    pub fn with(self, scope: Scope) -> Self {
        Scopes(self.0 | 1 << scope as u8)
    }

    /// Whether the set holds `scope`, by itself or through `admin`.
    pub fn allow(self, scope: Scope) -> bool {
        let has = |s: Scope| self.0 & (1 << s as u8) != 0;
        has(scope) || has(Scope::Admin)
    }

    pub fn names(self) -> Vec<&'static str> {
        let has = |s: &Scope| self.0 & (1 << *s as u8) != 0;
        Scope::ALL
            .into_iter()
            .filter(has)
            .map(Scope::name)
            .collect()
    }

    /// The form that stores keep.
    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn from_bits(bits: u8) -> Self {
        Scopes(bits & Self::ALL.0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::NONE, Scopes::with)
    }
}

/// The caller of one request, after authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    pub scopes: Scopes,
    /// The API key that proved it; none while authentication is off.
    pub key_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_plain_words() {
        assert!(UserId::parse("user123").is_some());
        assert!(UserId::parse("a@b.example/x").is_some());
        for bad in ["", "a b", "a\nb", "ü", "{p01}", &"x".repeat(129)] {
            assert_eq!(UserId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn admin_includes_every_scope_and_the_others_only_themselves() {
        let admin: Scopes = [Scope::Admin].into_iter().collect();
        let reader: Scopes = [Scope::Read].into_iter().collect();
        for scope in Scope::ALL {
            assert!(admin.allow(scope));
            assert_eq!(reader.allow(scope), scope == Scope::Read);
        }
        assert_eq!(Scopes::from_bits(reader.bits()), reader);
        assert_eq!(reader.names(), ["read"]);
    }
}
