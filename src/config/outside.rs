//! What the service may reach, and how: `[egress]`, `[smtp]` and the secret of its webhooks.

use std::fmt;

use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, Tokio1Executor};
use serde::Deserialize;

use super::error::ConfigError;
use super::layer::{Layer, Layers};
use crate::domain::webhook::WebhookSecret;
use crate::egress::rules::Rules;

/// `[egress]` of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressTable {
    /// Addresses, networks, names and `*.name` that are reached although they are not on the Internet.
    allow: Option<Vec<String>>,
}

/// `[smtp]` of the configuration file: the same settings as `smtp_url` and `smtp_from`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpTable {
    pub url: Option<String>,
    pub from: Option<String>,
}

/// The server that e-mail is handed to.
#[derive(Clone, PartialEq)]
pub struct Mail {
    /// May hold a password.
    pub url: String,
    pub from: Mailbox,
}

impl EgressTable {
    pub fn rules(&self) -> Result<Rules, ConfigError> {
        let allow = self.allow.as_deref().unwrap_or_default();
        Rules::parse(allow.iter().map(String::as_str))
            .map_err(|why| ConfigError::new(format!("[egress] allow: {why}")))
    }
}

impl SmtpTable {
    /// Stands in for the settings of the same meaning, unless they are there, too.
    pub fn join(self, settings: &mut Layer) -> Result<(), ConfigError> {
        for (key, name, text) in [
            ("smtp_url", "url", self.url),
            ("smtp_from", "from", self.from),
        ] {
            let Some(text) = text else { continue };
            let origin = format!("[smtp] {name}");
            if settings.contains_key(key) {
                return Err(ConfigError::new(format!(
                    "{origin} and {key} are the same setting"
                )));
            }
            settings.insert(key, super::layer::Given { text, origin });
        }
        Ok(())
    }
}

/// The URL itself is never shown: it may hold a password.
pub fn mail(layers: &Layers) -> Result<Option<Mail>, ConfigError> {
    let url = layers.get("smtp_url");
    let from = layers.get("smtp_from");
    let (url, from) = match (url, from) {
        (None, None) => return Ok(None),
        (Some(url), None) => {
            return Err(url.refuse("JUSTONCE_SMTP_FROM must say who the e-mails are from"));
        }
        (None, Some(from)) => return Err(from.refuse("there is no JUSTONCE_SMTP_URL")),
        (Some(url), Some(from)) => (url, from),
    };
    crate::cryptography::choose();
    let text = url.text.trim();
    if AsyncSmtpTransport::<Tokio1Executor>::from_url(text).is_err() {
        return Err(url.refuse(
            "is no smtp://host:port, smtp://host?tls=required or smtps://user:password@host",
        ));
    }
    Ok(Some(Mail {
        url: text.to_owned(),
        from: from.read(
            "an e-mail address, such as \"Jobs <jobs@example.com>\"",
            |text| text.parse().ok(),
        )?,
    }))
}

/// The text itself is never shown.
pub fn webhook_secret(layers: &Layers) -> Result<Option<WebhookSecret>, ConfigError> {
    let Some(given) = layers.get("webhook_secret") else {
        return Ok(None);
    };
    match WebhookSecret::parse(given.text.trim()) {
        Some(secret) => Ok(Some(secret)),
        None => Err(given.refuse("a secret is whsec_ and 24 to 64 bytes in Base64")),
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}
