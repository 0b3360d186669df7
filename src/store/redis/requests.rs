//! The requests of users, counted over all replicas.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::keys::Partition;
use super::lines::{Lines, Together};
use super::link::RESPONSE_WAIT_MAX;
use super::reply::{Reply, senseless};
use super::scripts::SPEND;
use super::step::{Step, Steps};
use crate::domain::principal::UserId;
use crate::domain::quota::{Quota, Spent};
use crate::store::StoreError;

/// Users who have no request left: until their windows end, Redis need not be asked about them, and whoever comes too
/// often costs others nothing.
#[derive(Default)]
pub struct Exhausted(Mutex<HashMap<UserId, Over>>);

/// Nothing is left of `max`.
#[derive(Clone, Copy)]
struct Over {
    max: u32,
    until: Instant,
}

/// Those whose windows are over are let go when there are so many more.
const SWEPT_EACH: usize = 1024;

/// A request that is to be counted.
pub struct Spending {
    user: UserId,
    max: u32,
}

impl Together for Spending {
    type Answer = Spent;
    const BATCH_MAX: usize = 256;

    fn bytes(&self) -> usize {
        self.user.as_str().len()
    }

    /// Never taken twice: a reply that is lost would cost two.
    async fn step(steps: &Steps, root: &str, all: &[Self]) -> Result<Vec<Spent>, StoreError> {
        let mut step = Step::new(&SPEND, &[root])
            .arg(Quota::WINDOW.as_millis() as u64)
            .never_repeated();
        for Spending { user, max } in all {
            step.also(user.as_str());
            step.also(*max);
        }
        let mut replies = steps.take(step).await?;
        all.iter().map(|_| read(replies.part()?)).collect()
    }
}

fn read(mut reply: Reply) -> Result<Spent, StoreError> {
    let is_taken = match reply.word()?.as_str() {
        "taken" => true,
        "over" => false,
        _ => return Err(senseless()),
    };
    Ok(Spent {
        is_taken,
        left: reply.number()?,
        resets_in: Duration::from_millis(reply.number()?),
    })
}

pub async fn spend(
    steps: &Steps,
    (lines, exhausted): (&Lines<Spending>, &Exhausted),
    place: (Partition, &str),
    user: &UserId,
    max: u32,
) -> Result<Spent, StoreError> {
    if let Some(spent) = exhausted.refusal(user, max) {
        return Ok(spent);
    }
    let until = Instant::now() + RESPONSE_WAIT_MAX;
    let one = Spending {
        user: user.clone(),
        max,
    };
    let spent = lines.take(steps, place, one, until).await?;
    if !spent.is_taken {
        exhausted.keep(user.clone(), max, spent.resets_in);
    }
    Ok(spent)
}

impl Exhausted {
    fn refusal(&self, user: &UserId, max: u32) -> Option<Spent> {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = users.get(user).filter(|over| max <= over.max)?;
        let resets_in = over.until.checked_duration_since(Instant::now())?;
        (!resets_in.is_zero()).then_some(Spent {
            is_taken: false,
            left: 0,
            resets_in,
        })
    }

    fn keep(&self, user: UserId, max: u32, resets_in: Duration) {
        let now = Instant::now();
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len().is_multiple_of(SWEPT_EACH) {
            users.retain(|_, over| now < over.until);
        }
        let until = now + resets_in;
        users.insert(user, Over { max, until });
    }
}
