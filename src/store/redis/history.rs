//! What happened to one user's tasks in a period.

use super::keys::Keys;
use super::leases::expect;
use super::rescue::fold_all;
use super::scripts::HISTORY;
use super::stats::tally;
use super::step::{Step, Steps};
use crate::domain::history::{History, Span};
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;

pub async fn history(
    steps: &Steps,
    keys: &Keys,
    user: &UserId,
    from: Timestamp,
    to: Timestamp,
) -> Result<History, StoreError> {
    let partition = keys.of_user(user);
    fold_all(steps, keys, &[partition]).await?;
    let span = Span::of(from, to, super::now());
    let starts: Vec<i64> = span.starts().map(Timestamp::as_ms).collect();
    let step = Step::new(&HISTORY, &[keys.root(partition)])
        .arg(user.as_str())
        .arg(span.bucket_ms())
        .arg(starts);
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "counted")?;
    let mut buckets = Vec::new();
    while !reply.is_over() {
        let at = Timestamp::from_ms(reply.number()?);
        let mut counts = reply.part()?;
        let mut sums = std::collections::HashMap::new();
        while !counts.is_over() {
            sums.insert(counts.word()?, counts.number()?);
        }
        buckets.push((at, tally(&sums)));
    }
    Ok(History { span, buckets })
}
