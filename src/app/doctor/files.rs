//! Holds the copies that records name against those that lie in the folder.
//!
//! Whatever seems wrong is looked at once more after a while: a service that is at work records, disowns and
//! deletes copies one after the other.

use std::io;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::blobs::inventory::{Inventory, Stored};
use crate::domain::file::BlobName;
use crate::store::audit::Audit;

/// Until the second look.
const PAUSE: Duration = Duration::from_secs(1);
/// A copy that no record names is deleted when it is an hour old, by the next sweep, which comes every hour.
const SWEPT_AFTER: Duration = Duration::from_secs(2 * 3600);

/// Who knows whether a copy is on record.
#[async_trait(?Send)]
pub trait Owners {
    async fn owns(&self, name: &BlobName) -> anyhow::Result<bool>;
}

/// Gives how many copies are there that nobody names, and that are too young to be wrong.
pub async fn compare(
    inventory: &Inventory,
    owners: &dyn Owners,
    audit: &mut Audit,
) -> anyhow::Result<usize> {
    let mut missing = std::mem::take(&mut audit.copies);
    let (mut strangers, mut young) = (Vec::new(), 0);
    for first in 0..=u8::MAX {
        for stored in inventory.beginning_with(first)? {
            audit.saw("copies in the folder", 1);
            match missing.remove(&stored.name) {
                Some(size) if size == stored.size => {}
                Some(size) => audit.found(&format!(
                    "copy {}: it has {} bytes in place of {size}",
                    stored.name, stored.size
                )),
                None if is_young(&stored) => young += 1,
                None => strangers.push(stored.name),
            }
        }
    }
    if missing.is_empty() && strangers.is_empty() {
        return Ok(young);
    }
    tokio::time::sleep(PAUSE).await;
    for (name, size) in &missing {
        if let Some(why) = why_missing(inventory, name, *size)?
            && owners.owns(name).await?
        {
            audit.found(&format!("copy {name}: {why}"));
        }
    }
    for name in &strangers {
        if inventory.find(name)?.is_some() && !owners.owns(name).await? {
            audit.found(&format!(
                "copy {name}: no record names it, and no sweep has deleted it"
            ));
        }
    }
    Ok(young)
}

fn is_young(stored: &Stored) -> bool {
    let age = SystemTime::now().duration_since(stored.written_at);
    age.is_ok_and(|age| age < SWEPT_AFTER)
}

fn why_missing(inventory: &Inventory, name: &BlobName, size: u64) -> io::Result<Option<String>> {
    Ok(match inventory.find(name)? {
        None => Some("it is on record, and not in the folder".to_owned()),
        Some(stored) if stored.size != size => {
            Some(format!("it has {} bytes in place of {size}", stored.size))
        }
        Some(_) => None,
    })
}
