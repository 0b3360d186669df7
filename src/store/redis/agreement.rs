//! What all replicas of a store agree on: its schema, its partitions, and its epoch. Whoever starts first
//! writes it.

use std::cmp::Ordering;
use std::sync::Arc;

use futures_util::future::join_all;

use super::keys::{self, Keys, PARTITIONS, Partition};
use super::leases::expect;
use super::link::Commands;
use super::marks::{Known, Marks};
use super::reply::senseless;
use super::scripts::{ACCEPT, AGREED, OPEN, REGISTER, REPORT};
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
    expect_known(schema)?;
    Ok(Some(Agreement {
        partitions: reply.number()?,
        epoch: reply.word()?,
        accepted: reply.word()?.split(' ').map(str::to_owned).collect(),
    }))
}

/// Refuses any layout but today's.
pub fn expect_known(schema: u32) -> Result<(), StartError> {
    match schema.cmp(&SCHEMA) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(StartError::Newer(schema)),
        Ordering::Less => Err(StartError::Older(schema)),
    }
}

impl Agreement {
    /// Goes on in the epoch that the replica knows, or begins one that it may take. That one is begun when the record of it,
    /// and a mark in it, are where acknowledgements must be: else a server that takes over might know no such epoch, and
    /// the replica would miss what nobody was promised.
    pub async fn take(&self, steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
        let marks = steps.marks();
        let known = marks.known();
        let is_new = known.epoch().is_empty();
        if is_new || self.accepted.iter().any(|epoch| epoch == known.epoch()) {
            let fresh = marks.of(&self.epoch, usize::from(self.partitions));
            register(steps, keys, &fresh).await?;
            marks.begin(fresh);
            return Ok(());
        }
        if known.epoch() != self.epoch {
            marks.lose(&known);
            return Err(StoreError::StateLost);
        }
        register(steps, keys, &known).await
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
        Some(agreement) => agreement.take(steps, keys).await,
        None => {
            steps.marks().lose(&steps.marks().known());
            Err(StoreError::StateLost)
        }
    }
}

/// The agreement, and what replicas have reported.
fn names(keys: &Keys) -> [String; 2] {
    [keys::agreement(keys.prefix()), keys::losses(keys.prefix())]
}

/// Leaves a mark in every partition, so that none can be lost unseen. As any promise, it is first brought to where
/// acknowledgements must be: one that went with its server would say that more has gone. A partition that does not answer
/// gets its mark with the first promise that is made there; but the agreement must answer, and is brought there too.
async fn register(steps: &Steps, keys: &Keys, known: &Arc<Known>) -> Result<(), StoreError> {
    let agreement = keys::agreement(keys.prefix());
    let registered = keys.partitions().map(async |partition| {
        let root = keys.root(partition);
        let step = match partition {
            Partition::FIRST => Step::new(&REGISTER, &[root, &agreement]),
            _ => Step::new(&REGISTER, &[root]),
        };
        let mut reply = steps.take_as_of(known, step.arg(known.epoch())).await?;
        match reply.word()?.as_str() {
            "registered" => Ok(()),
            "over" => Err(unavailable("another epoch has begun meanwhile")),
            _ => Err(senseless()),
        }
    });
    let registered = join_all(registered).await;
    let beside_agreement = registered.first().cloned().unwrap_or(Ok(()));
    outcome_of_all(registered).and(beside_agreement)
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
