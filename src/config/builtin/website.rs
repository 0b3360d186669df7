//! What a page to be scraped may be.

use serde_json::{Value, json};

use crate::domain::params_check::ParamsCheck;
use crate::domain::schema::Violation;
use crate::egress::rules::{Rules, URL_LENGTH_MAX};

pub fn params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "url": {
                "type": "string", "minLength": 1, "maxLength": URL_LENGTH_MAX,
                "description": "The page, http or https, on the Internet or where the operator allows it.",
            },
        },
        "required": ["url"],
        "additionalProperties": false,
    })
}

pub fn check(rules: Rules) -> ParamsCheck {
    ParamsCheck::new(move |params| {
        let url = params.get("url").and_then(Value::as_str);
        let refused = url.and_then(|url| rules.url(url).err());
        let violation = |refusal: crate::egress::rules::Refusal| Violation {
            pointer: "/params/url".to_owned(),
            detail: refusal.to_string(),
        };
        refused.map(violation).into_iter().collect()
    })
}
