//! API keys as clients hold them: `jo_<id>_<secret>`.

use std::fmt;

use subtle::ConstantTimeEq;

use crate::domain::digest::Sha256Digest;
use crate::domain::principal::{Scopes, UserId};
use crate::domain::timestamp::Timestamp;
use crate::store::ApiKey;

/// What a client presented, taken apart. The secret itself is gone: only its SHA-256 is held. That is
/// enough, since secrets of 256 random bits cannot be guessed from it.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedKey {
    id: String,
    secret_hash: Sha256Digest,
}

impl PresentedKey {
    const PREFIX: &str = "jo_";
    const ID_BYTES: usize = 8;
    const SECRET_BYTES: usize = 32;
    const LENGTH_MIN: usize = 8;
    const LENGTH_MAX: usize = 256;

    /// A new key, and the text that its owner is shown once.
    pub fn random() -> Result<(String, PresentedKey), getrandom::Error> {
        let mut random = [0; Self::ID_BYTES + Self::SECRET_BYTES];
        getrandom::fill(&mut random)?;
        let (id, secret) = random.split_at(Self::ID_BYTES);
        let text = format!(
            "{}{}_{}",
            Self::PREFIX,
            hexadecimal(id),
            hexadecimal(secret)
        );
        let key = PresentedKey::of_text(&text);
        Ok((text, key))
    }

    /// Reads a key of ours, or any other text of 8 to 256 visible ASCII characters: an operator may
    /// choose the first key.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = (Self::LENGTH_MIN..=Self::LENGTH_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic());
        valid.then(|| PresentedKey::of_text(text))
    }

    fn of_text(text: &str) -> Self {
        let is_id = |id: &&str| id.len() >= 12 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        let parts = text
            .strip_prefix(Self::PREFIX)
            .and_then(|t| t.split_once('_'));
        match parts.filter(|(id, _)| is_id(id)) {
            Some((id, secret)) => PresentedKey {
                id: id.to_owned(),
                secret_hash: Sha256Digest::of(secret.as_bytes()),
            },
            None => {
                // The id of a key that does not name one is a hash of its hash.
                let secret_hash = Sha256Digest::of(text.as_bytes());
                let id = Sha256Digest::of(secret_hash.as_bytes());
                PresentedKey {
                    id: hexadecimal(&id.as_bytes()[..Self::ID_BYTES]),
                    secret_hash,
                }
            }
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether this is the key on record, in a time that does not depend on either, nor on
    /// whether there is one.
    pub fn matches(&self, record: Option<&ApiKey>) -> bool {
        const NOBODY: Sha256Digest = Sha256Digest::from_bytes([0; 32]);
        let expected = record.map_or(NOBODY, |key| key.secret_hash);
        let same = self.secret_hash.as_bytes().ct_eq(expected.as_bytes());
        bool::from(same) && record.is_some()
    }

    /// The form that the store keeps.
    pub fn into_record(
        self,
        user: UserId,
        scopes: Scopes,
        created_at: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> ApiKey {
        ApiKey {
            id: self.id,
            secret_hash: self.secret_hash,
            user,
            scopes,
            created_at,
            expires_at,
            revoked_at: None,
        }
    }
}

/// Without the hash: it is not to stand in logs.
impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: PresentedKey) -> ApiKey {
        key.into_record(
            UserId::anonymous(),
            Scopes::ALL,
            Timestamp::from_ms(0),
            None,
        )
    }

    #[test]
    fn a_new_key_is_found_again_by_its_text() {
        let (text, key) = PresentedKey::random().unwrap();
        assert!(text.starts_with("jo_") && text.len() == 3 + 16 + 1 + 64);
        let presented = PresentedKey::parse(&text).unwrap();
        assert_eq!(presented, key);
        assert!(presented.matches(Some(&record(key))));
        assert!(!presented.matches(None));
    }

    #[test]
    fn another_secret_does_not_match() {
        let (text, key) = PresentedKey::random().unwrap();
        let forged = PresentedKey::parse(&format!("{text}0")).unwrap();
        assert_eq!(forged.id(), key.id());
        assert!(!forged.matches(Some(&record(key))));
    }

    #[test]
    fn an_operator_may_choose_a_key() {
        let chosen = PresentedKey::parse("correct-horse-battery").unwrap();
        assert_eq!(
            chosen,
            PresentedKey::parse("correct-horse-battery").unwrap()
        );
        assert_ne!(
            chosen.id(),
            PresentedKey::parse("correct-horse-batterz").unwrap().id()
        );
        assert_eq!(PresentedKey::parse("short"), None);
        assert_eq!(PresentedKey::parse("with a space"), None);
        assert!(!format!("{chosen:?}").contains(&chosen.secret_hash.to_string()));
    }
}
