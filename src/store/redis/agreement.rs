//! What all replicas of a store agree on: its schema, its partitions, and its epoch. Whoever starts first
//! writes it.

use std::sync::Arc;

use super::keys::{self, Keys, PARTITIONS};
use super::link::Commands;
use super::marks::Marks;
use super::scripts::{ACCEPT, OPEN};
use super::step::{Step, Steps};
use super::{SCHEMA, StartError};
use crate::store::StoreError;

/// What is on record.
pub struct Agreement {
    pub partitions: u16,
    epoch: String,
    /// Earlier epochs, whose loss an operator has accepted.
    accepted: Vec<String>,
}

/// Reads it, or writes it where there is none. None: there is none, and this replica remembers one.
pub async fn agree(steps: &Steps, prefix: &str) -> Result<Option<Agreement>, StartError> {
    let known = steps.marks().known();
    let step = Step::new(&OPEN, &[&keys::agreement(prefix)])
        .arg(SCHEMA)
        .arg(PARTITIONS)
        .arg(new_epoch())
        .arg(known.epoch())
        .anyway();
    let mut reply = steps.take(step).await?;
    match reply.word()?.as_str() {
        "agreed" => {}
        "gone" => return Ok(None),
        _ => return Err(super::reply::senseless().into()),
    }
    let schema: u32 = reply.number()?;
    if schema > SCHEMA {
        return Err(StartError::Newer(schema));
    }
    Ok(Some(Agreement {
        partitions: reply.number()?,
        epoch: reply.word()?,
        accepted: reply.word()?.split(' ').map(str::to_owned).collect(),
    }))
}

impl Agreement {
    /// Goes on in the epoch that the replica knows, or begins one that it may take.
    pub fn take(&self, marks: &Marks) {
        let known = marks.known();
        let is_new = known.epoch().is_empty();
        if is_new || self.accepted.iter().any(|epoch| epoch == known.epoch()) {
            marks.begin(&self.epoch, usize::from(self.partitions));
        } else if known.epoch() != self.epoch {
            marks.lose(&known);
        }
    }
}

/// Tells operators what this replica misses, and goes on as soon as they have accepted it.
pub async fn report_loss(steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
    let epoch = steps.marks().known().epoch().to_owned();
    let accepted = match agree(steps, keys.prefix()).await {
        Ok(Some(agreement)) => {
            let accepted = agreement.accepted.contains(&epoch);
            accepted.then_some(agreement)
        }
        Ok(None) => None,
        Err(StartError::Store(error)) => return Err(error),
        Err(error) => return Err(super::step::unavailable(&error.to_string())),
    };
    if let Some(agreement) = accepted {
        agreement.take(steps.marks());
        tracing::warn!("an operator has accepted the loss: serving again");
        return register(steps, keys).await;
    }
    let report = Step::command("HSET")
        .arg(keys::losses(keys.prefix()))
        .arg(steps.marks().replica())
        .arg(epoch)
        .anyway();
    steps.value(report).await.map(|_| ())
}

/// Leaves a mark in every partition, so that none can be lost unseen.
pub async fn register(steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
    for partition in keys.partitions() {
        steps.mark(keys.root(partition)).await?;
    }
    Ok(())
}

/// Accepts what replicas have reported. Returns how many have.
pub async fn accept_loss(link: Arc<dyn Commands>, prefix: &str) -> Result<u64, StoreError> {
    let steps = Steps::new(link.clone(), link, Arc::new(Marks::nobodys()));
    let step = Step::new(&ACCEPT, &[&keys::agreement(prefix), &keys::losses(prefix)])
        .arg(SCHEMA)
        .arg(PARTITIONS)
        .arg(new_epoch())
        .anyway();
    let mut reply = steps.take(step).await?;
    match reply.word()?.as_str() {
        "nothing" => Ok(0),
        "accepted" => reply.number(),
        _ => Err(super::reply::senseless()),
    }
}

fn new_epoch() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
