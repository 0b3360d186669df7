//! Starts of attempts that are bounded over all users of a type, whichever partition these are in. What starts needs a
//! permit from one place, where it is taken before a task is leased and given back when there was none.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::record::span_ms;
use super::scripts::PERMITS;
use super::step::{Step, Steps};
use crate::domain::turns::Rate;
use crate::store::signals::Signals;
use crate::store::{Lease, LeaseRequest, StoreError};

/// Whoever waits for a permit looks again after so long at the latest: others may have given some back, or the bound may
/// be another one by then.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Types whose next permit this replica waits for.
#[derive(Clone, Default)]
pub struct Rates(Arc<Mutex<HashSet<String>>>);

/// Permits that one call has taken, by type.
#[derive(Default)]
pub struct Permits {
    name: String,
    of: HashMap<String, Taken>,
}

struct Taken {
    rate: Rate,
    left: usize,
}

impl Permits {
    /// For each type of the request whose starts are bounded; types without any left are taken out of it.
    pub async fn take(
        steps: &Steps,
        keys: &Keys,
        rates: &Rates,
        signals: &Signals,
        request: &mut LeaseRequest,
    ) -> Result<Self, StoreError> {
        let mut permits = Permits {
            name: uuid::Uuid::new_v4().simple().to_string(),
            of: HashMap::new(),
        };
        for name in &request.types {
            let Some(rate) = request.bounds_of(name).rate else {
                continue;
            };
            let wanted = request.max.min(rate.attempts as usize);
            let (left, next_in) = permits
                .ask(steps, keys, name, rate, (wanted, wanted))
                .await?;
            if let Some(next_in) = next_in {
                rates.wake(name, next_in, signals);
            }
            permits.of.insert(name.clone(), Taken { rate, left });
        }
        permits.keep_to(request);
        Ok(permits)
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// How many tasks of this type may be leased, out of `max`.
    pub fn room(&self, task_type: &str, max: usize) -> usize {
        self.of
            .get(task_type)
            .map_or(max, |taken| taken.left.min(max))
    }

    pub fn use_up(&mut self, leases: &[Lease]) {
        for lease in leases {
            if let Some(taken) = self.of.get_mut(&lease.task.task_type) {
                taken.left = taken.left.saturating_sub(1);
            }
        }
    }

    /// Takes types out of the request that have none left.
    pub fn keep_to(&self, request: &mut LeaseRequest) {
        request.types.retain(|name| self.room(name, 1) > 0);
    }

    pub async fn give_back(&self, steps: &Steps, keys: &Keys) -> Result<(), StoreError> {
        for (name, taken) in self.of.iter().filter(|(_, taken)| taken.left > 0) {
            self.ask(steps, keys, name, taken.rate, (0, taken.left))
                .await?;
        }
        Ok(())
    }

    /// Permits, and the time until there is one when there are none left.
    async fn ask(
        &self,
        steps: &Steps,
        keys: &Keys,
        task_type: &str,
        rate: Rate,
        (wanted, given_up): (usize, usize),
    ) -> Result<(usize, Option<Duration>), StoreError> {
        let root = keys.root(Partition::FIRST);
        let step = Step::new(&PERMITS, &[root, &keys::permits(root, task_type)])
            .arg(&self.name)
            .arg(wanted)
            .arg(given_up)
            .arg(rate.attempts)
            .arg(span_ms(rate.span));
        let mut reply = steps.take(step).await?;
        expect(&mut reply, "taken")?;
        let taken = reply.number()?;
        Ok((taken, reply.optional()?.map(Duration::from_millis)))
    }
}

impl Rates {
    /// Lets workers look again when there is a permit. Once, however often it is asked for.
    fn wake(&self, task_type: &str, after: Duration, signals: &Signals) {
        if !self.waiting().insert(task_type.to_owned()) {
            return;
        }
        let (rates, signals, name) = (self.clone(), signals.clone(), task_type.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(after.min(LOOK_AGAIN)).await;
            rates.waiting().remove(&name);
            signals.work_is_ready();
        });
    }

    fn waiting(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
