//! API keys on record: in the first partition, since they belong to the service.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::record::{from_json, to_json};
use super::reply::{Reply, senseless};
use super::scripts::{CREATE_API_KEY, REVOKE_API_KEY};
use super::step::{Step, Steps};
use crate::domain::digest::Sha256Digest;
use crate::domain::principal::{Scopes, UserId};
use crate::domain::timestamp::Timestamp;
use crate::store::{ApiKey, StoreError};

/// An API key as it is written; when it was revoked stands beside it.
#[derive(Serialize, Deserialize)]
struct Stored {
    secret_hash: Sha256Digest,
    user: String,
    scopes: u8,
    created_at: i64,
    expires_at: Option<i64>,
}

pub async fn create(steps: &Steps, keys: &Keys, key: &ApiKey) -> Result<(), StoreError> {
    expect(&mut record(steps, keys, key, "").await?, "created")
}

/// Whether it is on record: another one is in its way.
pub async fn create_first(steps: &Steps, keys: &Keys, key: &ApiKey) -> Result<bool, StoreError> {
    match record(steps, keys, key, "first").await?.word()?.as_str() {
        "created" => Ok(true),
        "taken" => Ok(false),
        _ => Err(senseless()),
    }
}

async fn record(
    steps: &Steps,
    keys: &Keys,
    key: &ApiKey,
    which: &str,
) -> Result<Reply, StoreError> {
    let stored = Stored {
        secret_hash: key.secret_hash,
        user: key.user.as_str().to_owned(),
        scopes: key.scopes.bits(),
        created_at: key.created_at.as_ms(),
        expires_at: key.expires_at.map(Timestamp::as_ms),
    };
    let root = keys.root(Partition::FIRST);
    let step = Step::new(&CREATE_API_KEY, &[root, &keys::api_keys(root)])
        .arg(&key.id)
        .arg(to_json(&stored)?)
        .arg(which);
    steps.take(step).await
}

pub async fn find(steps: &Steps, keys: &Keys, id: &str) -> Result<Option<ApiKey>, StoreError> {
    let root = keys.root(Partition::FIRST);
    let field = |key: String| async move {
        let step = Step::command("HMGET").arg(key).arg(id);
        steps.take(step).await?.text()
    };
    let Some(stored) = field(keys::api_keys(root)).await? else {
        steps.misses_nothing(root).await?;
        return Ok(None);
    };
    let revoked_at = field(keys::api_keys_revoked(root)).await?;
    read(id, &stored, revoked_at.as_deref()).map(Some)
}

/// By the time of their creation.
pub async fn all(steps: &Steps, keys: &Keys) -> Result<Vec<ApiKey>, StoreError> {
    let root = keys.root(Partition::FIRST);
    let everything = |key: String| async move {
        let step = Step::command("HGETALL").arg(key);
        pairs(steps.take(step).await?)
    };
    let stored = everything(keys::api_keys(root)).await?;
    let revoked = everything(keys::api_keys_revoked(root)).await?;
    let mut found = Vec::new();
    for (id, stored) in &stored {
        found.push(read(id, stored, revoked.get(id).map(String::as_str))?);
    }
    found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(found)
}

pub async fn revoke(steps: &Steps, keys: &Keys, id: &str) -> Result<bool, StoreError> {
    let root = keys.root(Partition::FIRST);
    let (known, revoked) = (keys::api_keys(root), keys::api_keys_revoked(root));
    let step = Step::new(&REVOKE_API_KEY, &[root, &known, &revoked]).arg(id);
    match steps.take(step).await?.word()?.as_str() {
        "revoked" => Ok(true),
        "unknown" => Ok(false),
        _ => Err(senseless()),
    }
}

fn read(id: &str, stored: &str, revoked_at: Option<&str>) -> Result<ApiKey, StoreError> {
    let stored: Stored = from_json(stored)?;
    let revoked_at = revoked_at.map(|ms| ms.parse().map_err(|_| senseless()));
    Ok(ApiKey {
        id: id.to_owned(),
        secret_hash: stored.secret_hash,
        user: UserId::parse(&stored.user).ok_or_else(senseless)?,
        scopes: Scopes::from_bits(stored.scopes),
        created_at: Timestamp::from_ms(stored.created_at),
        expires_at: stored.expires_at.map(Timestamp::from_ms),
        revoked_at: revoked_at.transpose()?.map(Timestamp::from_ms),
    })
}

fn pairs(mut flat: Reply) -> Result<HashMap<String, String>, StoreError> {
    let mut pairs = HashMap::new();
    while !flat.is_over() {
        pairs.insert(flat.word()?, flat.word()?);
    }
    Ok(pairs)
}
