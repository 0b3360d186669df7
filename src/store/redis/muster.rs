//! Which replicas are there, and what their workers do.

use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::scripts::MUSTER;
use super::step::{Step, Steps};
use crate::domain::stats::Crew;
use crate::store::StoreError;

/// Says what the own workers do; gives what those of all replicas do.
pub async fn muster(steps: &Steps, keys: &Keys, own: Crew) -> Result<Crew, StoreError> {
    let root = keys.root(Partition::FIRST);
    let step = Step::new(&MUSTER, &[root, &keys::replicas(root)])
        .arg(steps.marks().replica())
        .arg(own.busy)
        .arg(own.idle);
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "mustered")?;
    Ok(Crew {
        busy: reply.number()?,
        idle: reply.number()?,
        replicas: reply.number()?,
    })
}
