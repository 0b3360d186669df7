//! API keys as their owners hold them: `jo_ID_SECRET`. The service keeps the secret's hash only.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::domain::digest::Sha256Digest;
use crate::domain::principal::{Scopes, UserId};
use crate::domain::timestamp::Timestamp;
use crate::store::ApiKey;

/// The part of a key that proves who calls. Never shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn hash(&self) -> Sha256Digest {
        Sha256Digest::of(self.0.as_bytes())
    }

    /// Whether this is the secret of that key; takes as long whether it is or not.
    pub fn proves(&self, key: &ApiKey) -> bool {
        let hash = self.hash();
        hash.as_bytes().ct_eq(key.secret_hash.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Characters that an id may have at most.
const ID_LENGTH_MAX: usize = 32;
/// Characters of a secret: ours have 64 hexadecimal digits, 256 random bits.
const SECRET_LENGTH: std::ops::RangeInclusive<usize> = 16..=128;

/// The id and the secret in a key's text, both of letters and digits.
pub fn parse(text: &str) -> Option<(&str, Secret)> {
    let (id, secret) = text.strip_prefix("jo_")?.split_once('_')?;
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric());
    let lengths_fit =
        (1..=ID_LENGTH_MAX).contains(&id.len()) && SECRET_LENGTH.contains(&secret.len());
    (lengths_fit && plain(id) && plain(secret)).then(|| (id, Secret(secret.to_owned())))
}

/// A new key: what is kept, and the text that is shown once.
pub fn generate(
    user: UserId,
    scopes: Scopes,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> (ApiKey, String) {
    let random = || uuid::Uuid::new_v4().simple().to_string();
    let id = random()[..12].to_owned();
    // Two version 4 UUIDs: 244 random bits.
    let secret = Secret(random() + &random());
    let text = format!("jo_{id}_{}", secret.0);
    let key = record(&id, &secret, user, scopes, created_at, expires_at);
    (key, text)
}

/// The record of a key that an operator has chosen.
pub fn record(
    id: &str,
    secret: &Secret,
    user: UserId,
    scopes: Scopes,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        secret_hash: secret.hash(),
        user,
        scopes,
        created_at,
        expires_at,
        revoked_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_proves_itself_and_no_other() {
        let make = || {
            generate(
                UserId::anonymous(),
                Scopes::ALL,
                Timestamp::from_ms(0),
                None,
            )
        };
        let ((key, text), (other, _)) = (make(), make());
        let (id, secret) = parse(&text).unwrap();
        assert_eq!(id, key.id);
        assert!(secret.proves(&key));
        assert!(!secret.proves(&other));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn texts_that_are_no_keys_are_told() {
        let fine = format!("jo_a1_{}", "x".repeat(16));
        assert!(parse(&fine).is_some());
        for bad in [
            "",
            "jo_",
            "jo_a1_short",
            &fine[3..],
            &format!("{fine}_"),
            "jo__0123456789abcdef",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
