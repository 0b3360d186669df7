//! Values that all replicas use: in the first partition, since they belong to the service.

use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::scripts::AGREE;
use super::step::{Step, Steps};
use crate::store::StoreError;

/// The one on record under that name, which is the proposed one when there was none.
pub async fn on(
    steps: &Steps,
    keys: &Keys,
    name: &str,
    proposed: &str,
) -> Result<String, StoreError> {
    let root = keys.root(Partition::FIRST);
    let step = Step::new(&AGREE, &[root, &keys::agreed(root)])
        .arg(name)
        .arg(proposed);
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "agreed")?;
    reply.word()
}
