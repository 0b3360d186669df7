//! Files that users have uploaded, and whether their copies are needed.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::from_redis_value;

use super::keys::{self, Keys};
use super::leases::expect;
use super::record::span_ms;
use super::reply::senseless;
use super::scripts::{KEEP_FILE, UNOWNED};
use super::step::{Step, Steps};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File, Generation};
use crate::domain::principal::UserId;
use crate::store::StoreError;

/// Files kept without a task are kept this long.
pub const RETENTION: Duration = Duration::from_secs(86_400);

pub async fn find(
    steps: &Steps,
    keys: &Keys,
    user: &UserId,
    sha256: &Sha256Digest,
) -> Result<Option<File>, StoreError> {
    let root = keys.root(keys.of_user(user));
    let step = Step::command("HMGET")
        .arg(keys::file(root, user, sha256))
        .arg(&["generation", "size", "name", "media_type"]);
    let mut reply = steps.take(step).await?;
    let Some(generation) = reply.text()? else {
        steps.misses_nothing(root).await?;
        return Ok(None);
    };
    Ok(Some(File {
        part: None,
        sha256: *sha256,
        size: reply.number()?,
        name: reply.text()?,
        media_type: reply.text()?,
        generation: Generation::parse(&generation),
    }))
}

/// Gives what is now on record; nothing, for a file without a copy of which there is none.
pub async fn keep(
    steps: &Steps,
    keys: &Keys,
    user: &UserId,
    file: File,
) -> Result<Option<File>, StoreError> {
    let generation = file.generation.as_ref().map_or("", Generation::as_str);
    let step = Step::new(&KEEP_FILE, &[keys.root(keys.of_user(user))])
        .arg(user.as_str())
        .arg(file.sha256.to_string())
        .arg(generation)
        .arg(file.size)
        .arg(file.name.as_deref().unwrap_or_default())
        .arg(file.media_type.as_deref().unwrap_or_default())
        .arg(span_ms(RETENTION));
    match steps.take(step).await?.word()?.as_str() {
        "kept" => find(steps, keys, user, &file.sha256).await,
        "unknown" => Ok(None),
        _ => Err(senseless()),
    }
}

/// A copy's name does not say whose it is: every partition is asked. A store that has begun within this
/// time may be one that was emptied, and whose copies are needed when it is restored: none of them are said
/// to be unowned.
pub async fn unowned(
    steps: &Steps,
    keys: &Keys,
    names: Vec<BlobName>,
    not_before: Duration,
) -> Result<Vec<BlobName>, StoreError> {
    if names.is_empty() || age(steps, keys).await? < not_before {
        return Ok(Vec::new());
    }
    let mut owned = HashSet::new();
    for partition in keys.partitions() {
        let words: Vec<_> = names.iter().map(BlobName::to_string).collect();
        let step = Step::new(&UNOWNED, &[keys.root(partition)]).arg(words);
        let mut reply = steps.take(step).await?;
        expect(&mut reply, "owned")?;
        for name in &names {
            if reply.number::<u8>()? == 1 {
                owned.insert(name.clone());
            }
        }
    }
    let is_unowned = |name: &BlobName| !owned.contains(name);
    Ok(names.into_iter().filter(is_unowned).collect())
}

/// How long ago the store has begun, or what it had lost was accepted.
async fn age(steps: &Steps, keys: &Keys) -> Result<Duration, StoreError> {
    let step = Step::command("HGET")
        .arg(keys::agreement(keys.prefix()))
        .arg("began_at");
    let began_at: Option<u64> =
        from_redis_value(steps.value(step).await?).map_err(|_| senseless())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    Ok(Duration::from_secs(
        now.saturating_sub(began_at.unwrap_or(now)),
    ))
}
