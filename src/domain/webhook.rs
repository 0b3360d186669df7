//! Signatures of webhooks: Standard Webhooks 1.0.0.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::timestamp::Timestamp;

/// The secret that both sides share, `whsec_` and 24 to 64 bytes in Base64. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    const PREFIX: &str = "whsec_";
    const BYTES_MIN: usize = 24;
    const BYTES_MAX: usize = 64;

    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(Self::PREFIX)?).ok()?;
        (Self::BYTES_MIN..=Self::BYTES_MAX)
            .contains(&bytes.len())
            .then_some(WebhookSecret(bytes))
    }

    /// The one with these random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        WebhookSecret(random.into())
    }

    /// As it is written down for the other side.
    pub fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(&self.0))
    }

    /// The value of `webhook-signature` for a message with this id, time (seconds since 1970) and body.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return String::new();
        };
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The secret that a user has set, and the one before while whoever checks signatures changes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSecret {
    pub secret: WebhookSecret,
    pub set_at: Timestamp,
    /// None: the one of the installation.
    pub previous: Option<WebhookSecret>,
    pub previous_until: Timestamp,
}

impl OwnSecret {
    /// What follows when the user sets `secret`. The same once more, as after a lost answer, changes nothing.
    pub fn after(
        known: Option<OwnSecret>,
        secret: WebhookSecret,
        now: Timestamp,
        overlap: Duration,
    ) -> Self {
        match known {
            Some(known) if known.secret == secret => known,
            known => OwnSecret {
                secret,
                set_at: now,
                previous: known.map(|known| known.secret),
                previous_until: now.plus(overlap),
            },
        }
    }

    /// The secrets that are valid now, the newest first.
    pub fn valid<'a>(
        &'a self,
        installation: &'a WebhookSecret,
        now: Timestamp,
    ) -> Vec<&'a WebhookSecret> {
        let before = self.previous.as_ref().unwrap_or(installation);
        let before = (now < self.previous_until).then_some(before);
        [&self.secret].into_iter().chain(before).collect()
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hmac module.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(WebhookSecret::parse(&secret.reveal()), Some(secret));
    }

    #[test]
    fn secrets_have_their_form_and_length() {
        for text in [
            "",
            "whsec_",
            "whsec_AAAA",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_?fKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert_eq!(WebhookSecret::parse(text), None, "{text}");
        }
        let long = WebhookSecret(vec![7; 65]).reveal();
        assert_eq!(WebhookSecret::parse(&long), None);
        assert!(!format!("{:?}", WebhookSecret::new([7; 32])).contains("Bwc"));
    }
}
