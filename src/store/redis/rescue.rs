//! What time makes due, partition by partition.

use futures_util::future::{join_all, try_join_all};

use super::horizon::Horizon;
use super::keys::{Keys, Partition};
use super::leases::{expect, put_aside};
use super::scripts::{FOLD, RESCUE};
use super::stats::SPANS;
use super::step::{Step, Steps};
use crate::domain::file::BlobName;
use crate::domain::timestamp::Timestamp;
use crate::store::{Rescued, StoreError};

/// Deadlines of each kind that one step looks at, at most.
const DEADLINES_MAX: usize = 100;
/// Counts that one step folds, at most.
const FOLDED_MAX: usize = 100;

/// The error of a task whose last attempt was lost, around the number of that attempt.
const LOST: (&str, &str) = (
    r#"{"code":"lease-lost","message":"The worker stopped answering during the last attempt.","attempt":"#,
    r#","permanent":false}"#,
);

pub async fn rescue(
    steps: &Steps,
    keys: &Keys,
    horizon: &Horizon,
    now: Timestamp,
) -> Result<Rescued, StoreError> {
    let due = horizon.to_rescue(now);
    let visits = due.iter().map(|&partition| async move {
        let visited = visit(steps, keys.root(partition)).await;
        match &visited {
            Ok(Rescued {
                next_due_at: Some(at),
                ..
            }) => horizon.due(partition, *at),
            Ok(_) => {}
            Err(_) => horizon.due(partition, now),
        }
        visited.map(|rescued| (partition, rescued))
    });
    let mut all = Rescued::default();
    let mut failure = None;
    let visits = join_all(visits).await;
    let is_vain = !visits.is_empty() && visits.iter().all(Result::is_err);
    for visited in visits {
        let (partition, one) = match visited {
            Ok(rescued) => rescued,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        if one.queued + one.resumed + one.leases_expired > 0 {
            horizon.work(partition);
        }
        all.queued += one.queued;
        all.resumed += one.resumed;
        all.leases_expired += one.leases_expired;
        all.expired += one.expired;
        all.more |= one.more;
        all.disowned.extend(one.disowned);
    }
    if let Some(failure) = failure.filter(|_| is_vain) {
        return Err(failure);
    }
    all.next_due_at = horizon.next_due_at();
    Ok(all)
}

async fn visit(steps: &Steps, root: &str) -> Result<Rescued, StoreError> {
    let step = Step::new(&RESCUE, &[root])
        .arg(DEADLINES_MAX)
        .arg(LOST.0)
        .arg(LOST.1);
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "rescued")?;
    let mut rescued = Rescued {
        queued: reply.number()?,
        resumed: reply.number()?,
        leases_expired: reply.number()?,
        expired: reply.number()?,
        more: reply.word()? == "more",
        next_due_at: reply.optional()?.map(Timestamp::from_ms),
        disowned: Vec::new(),
    };
    let unfolded: u64 = reply.number()?;
    put_aside(&reply.word()?);
    while !reply.is_over() {
        rescued.disowned.extend(BlobName::parse(&reply.word()?));
    }
    if unfolded > 0 {
        fold(steps, root).await?;
    }
    Ok(rescued)
}

/// Brings all counts of a partition into the buckets that statistics read.
pub async fn fold(steps: &Steps, root: &str) -> Result<(), StoreError> {
    loop {
        let mut step = Step::new(&FOLD, &[root]).arg(FOLDED_MAX);
        for (span, kept) in SPANS {
            step = step.arg(span).arg(kept);
        }
        let mut reply = steps.take(step).await?;
        expect(&mut reply, "folded")?;
        if reply.number::<u64>()? == 0 {
            return Ok(());
        }
    }
}

pub async fn fold_all(
    steps: &Steps,
    keys: &Keys,
    partitions: &[Partition],
) -> Result<(), StoreError> {
    let folds = partitions.iter().map(|&p| fold(steps, keys.root(p)));
    try_join_all(folds).await.map(|_| ())
}
