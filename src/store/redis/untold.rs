//! Ends that replicas of an older release have recorded, and told nobody of.

use redis::from_redis_value;

use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::reply::senseless;
use super::scripts::TELL;
use super::step::{Step, Steps};
use crate::store::StoreError;

/// Tasks that one step looks at, about.
const LOOKED_AT: usize = 100;

/// Where no task has a callback that waits for its end, it costs one command, or one for each part of a cluster.
pub async fn tell(steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
    let all: Vec<Partition> = keys.partitions().collect();
    let at_a_time = match steps.link().is_one_server() {
        true => all.len(),
        false => 1,
    };
    for some in all.chunks(at_a_time) {
        let awaited = some.iter().map(|&p| keys::awaited(keys.root(p)));
        let step = Step::command("EXISTS").arg(awaited.collect::<Vec<_>>());
        let count: u64 = from_redis_value(steps.value(step).await?).map_err(|_| senseless())?;
        if count > 0 {
            tell_in(steps, keys, some).await?;
        }
    }
    Ok(())
}

async fn tell_in(steps: &Steps, keys: &Keys, partitions: &[Partition]) -> Result<(), StoreError> {
    for &partition in partitions {
        let mut from = "0".to_owned();
        loop {
            let step = Step::new(&TELL, &[keys.root(partition)])
                .arg(&from)
                .arg(LOOKED_AT);
            let mut reply = steps.take(step).await?;
            expect(&mut reply, "told")?;
            from = reply.word()?;
            if from == "0" {
                break;
            }
        }
    }
    Ok(())
}
