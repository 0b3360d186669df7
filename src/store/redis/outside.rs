//! The workers outside, by the leases that they hold.

use super::keys::{self, Keys};
use super::reply::{Reply, senseless};
use super::step::{Step, Steps};
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::domain::worker::{OutsideLease, OutsideWorkers, Worker};
use crate::store::StoreError;

/// Leases that Redis looks at in one go, about.
const PIECE: usize = 500;

pub async fn workers(steps: &Steps, keys: &Keys) -> Result<Vec<Worker>, StoreError> {
    let mut workers = OutsideWorkers::default();
    for partition in keys.partitions() {
        let held = keys::outside(keys.root(partition));
        let mut cursor = "0".to_owned();
        loop {
            let step = Step::command("HSCAN").arg(&held).arg(&cursor);
            let mut piece = steps.take(step.arg("COUNT").arg(PIECE)).await?;
            cursor = piece.word()?;
            let mut pairs = piece.part()?;
            while !pairs.is_over() {
                workers.add(lease(&mut pairs)?);
            }
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(workers.into_workers().collect())
}

/// As lease.lua writes it.
fn lease(pairs: &mut Reply) -> Result<OutsideLease, StoreError> {
    let (task, held) = (pairs.word()?, pairs.word()?);
    let mut words = held.splitn(4, ' ');
    let mut word = || words.next().ok_or_else(senseless);
    let time = |ms: &str| ms.parse().map(Timestamp::from_ms).map_err(|_| senseless());
    Ok(OutsideLease {
        task: TaskId::parse(&task).ok_or_else(senseless)?,
        heard_at: time(word()?)?,
        leased_at: time(word()?)?,
        task_type: word()?.to_owned(),
        worker: word()?.to_owned(),
    })
}
