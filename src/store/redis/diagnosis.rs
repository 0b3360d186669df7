//! What an operator should know of Redis when the service does not serve. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::from_redis_value;

use super::guard::Guard;
use super::keys;
use super::marks::Marks;
use super::reply::senseless;
use super::step::{Step, Steps};
use super::{Options, StartError};
use crate::store::{Durability, StoreError};

#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// None where no replica has ever begun, or everything is gone.
    pub schema: Option<String>,
    /// Why the settings must not stay as they are.
    pub fault: Option<String>,
    pub durability: Durability,
    /// Replicas that miss what they were told, and the epoch that each has known.
    pub losses: BTreeMap<String, String>,
}

pub async fn diagnose(options: &Options) -> Result<Diagnosis, StartError> {
    let link = options.address.connect().await?;
    let steps = Steps::new(link.clone(), link, Arc::new(Marks::nobodys()));
    let guard = Guard::new(options.assumed.clone(), options.durability_min);
    guard.look(&steps).await?;
    let mut agreement = hash(&steps, &keys::agreement(&options.prefix)).await?;
    Ok(Diagnosis {
        schema: agreement.remove("schema"),
        fault: guard.fault(),
        durability: guard.durability(),
        losses: hash(&steps, &keys::losses(&options.prefix)).await?,
    })
}

async fn hash(steps: &Steps, key: &str) -> Result<BTreeMap<String, String>, StoreError> {
    let answer = steps.value(Step::command("HGETALL").arg(key)).await?;
    from_redis_value(answer).map_err(|_| senseless())
}
