//! What a user's webhooks are signed with.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::step::{Sql, Step};
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{OwnSecret, WebhookSecret};

pub fn find(sql: &Sql<'_>, user: &UserId) -> rusqlite::Result<Option<OwnSecret>> {
    sql.prepare_cached(
        "SELECT secret, set_at, previous, previous_until FROM webhook_secret WHERE user = ?1",
    )?
    .query_row([user.as_str()], read)
    .optional()
}

pub fn set(
    step: &Step<'_>,
    user: &UserId,
    secret: &WebhookSecret,
    overlap: Duration,
) -> rusqlite::Result<OwnSecret> {
    let known = find(&step.sql, user)?;
    let own = OwnSecret::after(known, secret.clone(), step.now, overlap);
    step.sql.execute(
        "INSERT OR REPLACE INTO webhook_secret VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            user.as_str(),
            own.secret.reveal(),
            own.set_at.as_ms(),
            own.previous.as_ref().map(WebhookSecret::reveal),
            own.previous_until.as_ms()
        ],
    )?;
    Ok(own)
}

fn read(row: &Row<'_>) -> rusqlite::Result<OwnSecret> {
    let secret = |index, text: &str| {
        WebhookSecret::parse(text).ok_or_else(|| {
            let why = "not a secret that this release writes".into();
            rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, why)
        })
    };
    let previous = row.get_ref(2)?.as_str_or_null()?;
    Ok(OwnSecret {
        secret: secret(0, row.get_ref(0)?.as_str()?)?,
        set_at: Timestamp::from_ms(row.get(1)?),
        previous: previous.map(|text| secret(2, text)).transpose()?,
        previous_until: Timestamp::from_ms(row.get(3)?),
    })
}
