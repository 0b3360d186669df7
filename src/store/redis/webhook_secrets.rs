//! What users' webhooks are signed with.

use std::time::Duration;

use super::keys;
use super::leases::expect;
use super::record::span_ms;
use super::reply::senseless;
use super::scripts::SET_WEBHOOK_SECRET;
use super::step::{Step, Steps};
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{OwnSecret, WebhookSecret};
use crate::store::StoreError;

pub async fn find(
    steps: &Steps,
    root: &str,
    user: &UserId,
) -> Result<Option<OwnSecret>, StoreError> {
    let step = Step::command("HMGET")
        .arg(keys::webhook_secrets(root))
        .arg(user.as_str());
    let found = steps.take(step).await?.text()?;
    found.map(|text| read(&mut text.split(' '))).transpose()
}

pub async fn set(
    steps: &Steps,
    root: &str,
    user: &UserId,
    secret: &WebhookSecret,
    overlap: Duration,
) -> Result<OwnSecret, StoreError> {
    let step = Step::new(&SET_WEBHOOK_SECRET, &[root, &keys::webhook_secrets(root)])
        .arg(user.as_str())
        .arg(secret.reveal())
        .arg(span_ms(overlap));
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "set")?;
    let words = [reply.word()?, reply.word()?, reply.word()?, reply.word()?];
    read(&mut words.iter().map(String::as_str))
}

/// As set_webhook_secret.lua writes and tells it.
fn read<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<OwnSecret, StoreError> {
    let mut next = || words.next().ok_or_else(senseless);
    let time = |word: &str| {
        word.parse()
            .map(Timestamp::from_ms)
            .map_err(|_| senseless())
    };
    let secret = |word: &str| WebhookSecret::parse(word).ok_or_else(senseless);
    Ok(OwnSecret {
        set_at: time(next()?)?,
        previous_until: time(next()?)?,
        secret: secret(next()?)?,
        previous: match next()? {
            "" => None,
            word => Some(secret(word)?),
        },
    })
}
