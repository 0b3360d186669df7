//! What all replicas of a store agree on: its schema, its partitions, and its epoch. Whoever starts first
//! writes it.

use std::sync::Arc;

use futures_util::future::join_all;

use super::keys::{self, Keys, PARTITIONS};
use super::leases::expect;
use super::link::Commands;
use super::marks::Marks;
use super::reply::senseless;
use super::scripts::{ACCEPT, AGREED, OPEN, REPORT};
use super::step::{Step, Steps, unavailable};
use super::{SCHEMA, StartError, outcome_of_all};
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
        _ => return Err(senseless().into()),
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
    let known = steps.marks().known();
    let report = Step::new(&REPORT, &names(keys).each_ref().map(String::as_str))
        .arg(steps.marks().replica())
        .arg(known.epoch())
        .anyway();
    match steps.take(report).await?.word()?.as_str() {
        "reported" => Ok(()),
        "accepted" => {
            take_epoch(steps, keys).await?;
            tracing::warn!("an operator has accepted the loss: serving again");
            Ok(())
        }
        _ => Err(senseless()),
    }
}

/// What one replica misses, all refuse to serve; and what was accepted, all leave behind.
pub async fn look(steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
    let known = steps.marks().known();
    let step = Step::new(&AGREED, &names(keys).each_ref().map(String::as_str)).arg(known.epoch());
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "agreed")?;
    let epoch = reply.word()?;
    if reply.word()? == "lost" {
        steps.marks().lose(&known);
        return Err(StoreError::StateLost);
    }
    if epoch != known.epoch() {
        take_epoch(steps, keys).await?;
    }
    Ok(())
}

/// Goes on in the epoch that is on record, if what was known of the last one may be left behind.
async fn take_epoch(steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
    let agreement = match agree(steps, keys.prefix()).await {
        Ok(agreement) => agreement,
        Err(StartError::Store(error)) => return Err(error),
        Err(error) => return Err(unavailable(&error.to_string())),
    };
    match agreement {
        Some(agreement) => agreement.take(steps.marks()),
        None => steps.marks().lose(&steps.marks().known()),
    }
    if steps.marks().is_lost() {
        return Err(StoreError::StateLost);
    }
    register(steps, keys).await
}

/// The agreement, and what replicas have reported.
fn names(keys: &Keys) -> [String; 2] {
    [keys::agreement(keys.prefix()), keys::losses(keys.prefix())]
}

/// Leaves a mark in every partition, so that none can be lost unseen. One that does not answer gets its
/// mark with the first step that it takes.
pub async fn register(steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
    let known = steps.marks().known();
    let marks = keys.partitions().map(async |partition| {
        let mark = steps.mark(keys.root(partition)).await?;
        known.saw(partition, mark);
        Ok(())
    });
    outcome_of_all(join_all(marks).await)
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
        _ => Err(senseless()),
    }
}

fn new_epoch() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
