//! Files that no task reads any more: those that have an end, among those of the partition.

use super::files::{self, RETENTION};
use super::keys::Keys;
use super::reply::senseless;
use super::scripts::FORGET_FILE;
use super::step::{Step, Steps};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::BlobName;
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::store::{FileCursor, StoreError, UnreferencedFiles};

/// Entries that one page looks at, about.
const LOOKED_AT: usize = 500;

pub async fn page(
    steps: &Steps,
    keys: &Keys,
    user: &UserId,
    before: Timestamp,
    after: Option<FileCursor>,
) -> Result<UnreferencedFiles, StoreError> {
    let root = keys.root(keys.of_user(user));
    let cursor = after.map_or("0".to_owned(), |cursor| cursor.0);
    let step = Step::command("ZSCAN")
        .arg(format!("{root}file-expiry"))
        .arg(cursor)
        .arg("COUNT")
        .arg(LOOKED_AT);
    let mut reply = steps.take(step).await?;
    let next = reply.word()?;
    let mut entries = reply.part()?;
    let latest = before.plus(RETENTION).as_ms() as f64;
    let mut found = Vec::new();
    while !entries.is_over() {
        let (member, expires_at) = (entries.word()?, entries.number::<f64>()?);
        let (sha256, owner) = member.split_once(':').ok_or_else(senseless)?;
        if owner == user.as_str() && expires_at <= latest {
            found.push(Sha256Digest::parse_hex(sha256).ok_or_else(senseless)?);
        }
    }
    let mut unreferenced = Vec::with_capacity(found.len());
    for sha256 in found {
        unreferenced.extend(files::find(steps, keys, user, &sha256).await?);
    }
    Ok(UnreferencedFiles {
        files: unreferenced,
        next: (next != "0").then_some(FileCursor(next)),
    })
}

pub async fn forget(
    steps: &Steps,
    keys: &Keys,
    user: &UserId,
    name: &BlobName,
    before: Timestamp,
) -> Result<bool, StoreError> {
    let step = Step::new(&FORGET_FILE, &[keys.root(keys.of_user(user))])
        .arg(user.as_str())
        .arg(name.sha256.to_string())
        .arg(name.generation.as_str())
        .arg(before.plus(RETENTION).as_ms());
    match steps.take(step).await?.word()?.as_str() {
        "gone" => Ok(true),
        "kept" => Ok(false),
        _ => Err(senseless()),
    }
}
