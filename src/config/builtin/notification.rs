//! What a notification may be.

use serde_json::{Value, json};

use crate::domain::params_check::ParamsCheck;
use crate::domain::schema::Violation;
use crate::egress::rules::Rules;

pub fn params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "channel": {
                "type": "string", "enum": ["webhook", "email", "stream"],
                "description": "How it is sent. `email` needs a mail server in the configuration; `stream` is the user's own `GET /v1/events`.",
            },
            "to": {
                "type": "string", "minLength": 1, "maxLength": 2048,
                "description": "The URL of the webhook, or the e-mail address; not for `stream`.",
            },
            "subject": {
                "type": "string", "maxLength": 500,
                "description": "Of the e-mail; the title when absent.",
            },
            "body": {
                "type": "string", "minLength": 1, "maxLength": 262_144,
            },
            "title": {
                "type": "string", "maxLength": 500,
            },
            "level": {
                "type": "string", "enum": ["info", "success", "warning", "error"],
            },
        },
        "required": ["channel", "body"],
        "additionalProperties": false,
    })
}

/// What the channel needs. `mails`: whether this service can send e-mail.
pub fn check(rules: Rules, mails: bool) -> ParamsCheck {
    ParamsCheck::new(move |params| {
        let text = |name: &str| params.get(name).and_then(Value::as_str);
        let wrong = match (text("channel"), text("to")) {
            (Some("stream"), _) if params.get("to").is_some() => Some((
                "to",
                "is not for this channel: the user's own stream is told".to_owned(),
            )),
            (Some("email"), _) if !mails => Some((
                "channel",
                "cannot be email: this service has no mail server (JUSTONCE_SMTP_URL)".to_owned(),
            )),
            (Some("webhook" | "email"), None) if params.get("to").is_none() => {
                Some(("to", "is required for this channel".to_owned()))
            }
            (Some("webhook"), Some(to)) => {
                let refused = rules.url(to).err();
                refused.map(|refusal| ("to", refusal.to_string()))
            }
            (Some("email"), Some(to)) if to.parse::<lettre::Address>().is_err() => {
                Some(("to", "is no e-mail address".to_owned()))
            }
            // The schema has its own say about the types of members.
            _ => None,
        };
        let violation = |(name, detail)| Violation {
            pointer: format!("/params/{name}"),
            detail,
        };
        wrong.into_iter().map(violation).collect()
    })
}
