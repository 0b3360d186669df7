//! Files that users have uploaded, and whether their copies are needed.

use std::collections::HashSet;
use std::time::Duration;

use redis::from_redis_value;

use super::keys::{self, Keys};
use super::record::span_ms;
use super::reply::senseless;
use super::scripts::KEEP_FILE;
use super::step::{Step, Steps};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, File, Generation};
use crate::domain::principal::UserId;
use crate::store::StoreError;

/// Files kept without a task are kept this long.
const RETENTION: Duration = Duration::from_secs(86_400);

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

/// A copy's name does not say whose it is: every partition is asked.
pub async fn unowned(
    steps: &Steps,
    keys: &Keys,
    names: Vec<BlobName>,
) -> Result<Vec<BlobName>, StoreError> {
    if names.is_empty() {
        return Ok(names);
    }
    let mut owned = HashSet::new();
    for partition in keys.partitions() {
        let words: Vec<_> = names.iter().map(BlobName::to_string).collect();
        let step = Step::command("SMISMEMBER")
            .arg(keys::blobs(keys.root(partition)))
            .arg(words);
        let here: Vec<bool> =
            from_redis_value(steps.value(step).await?).map_err(|_| senseless())?;
        let here = names.iter().zip(here).filter(|(_, here)| *here);
        owned.extend(here.map(|(name, _)| name.clone()));
    }
    let is_unowned = |name: &BlobName| !owned.contains(name);
    Ok(names.into_iter().filter(is_unowned).collect())
}
