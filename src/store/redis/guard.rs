//! Whether Redis is set up to keep what it is given, at the start and every few seconds after.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::{RedisError, RedisResult, Value, from_redis_value};
use tokio::time::timeout;

use super::confirmations::Demand;
use super::link::RESPONSE_WAIT_MAX;
use super::outcome::{Outcome, Refusal, classify};
use super::reply::senseless;
use super::step::{Step, Steps, unavailable};
use crate::store::{Durability, Guarantees, StoreError};

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(2);

const POLICY: &str = "maxmemory-policy";
const NOEVICTION: &str = Guarantees::NOEVICTION;

/// What the operator vouches for where Redis does not show its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assumed {
    pub noeviction: bool,
    pub fsync: bool,
}

impl Assumed {
    /// `noeviction`, `fsync`, or both with a comma.
    pub fn parse(text: &str) -> Option<Self> {
        let words: BTreeSet<_> = text.split(',').map(str::trim).collect();
        let known = |word: &&str| ["", "noeviction", "fsync", "memory"].contains(word);
        words.iter().all(known).then(|| Assumed {
            noeviction: words.contains("noeviction"),
            fsync: words.contains("fsync"),
        })
    }
}

/// The settings that matter, as one primary shows them.
type Settings = HashMap<String, String>;

pub struct Guard {
    assumed: Assumed,
    /// What acknowledgements must survive at least.
    floor: Durability,
    seen: RwLock<Seen>,
}

/// What was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    fault: Option<String>,
    durability: Durability,
    demand: Option<Demand>,
    guarantees: Guarantees,
}

impl Guard {
    pub fn new(assumed: Assumed, floor: Durability) -> Self {
        let seen = Seen {
            fault: Some("the settings of Redis were not seen yet".to_owned()),
            durability: Durability::Memory,
            demand: None,
            guarantees: Guarantees {
                eviction_policy: "unknown".to_owned(),
                are_assumed: false,
            },
        };
        Guard {
            assumed,
            floor,
            seen: RwLock::new(seen),
        }
    }

    /// Why Redis must not be used as it is, if so.
    pub fn fault(&self) -> Option<String> {
        self.seen().fault
    }

    pub fn has_fault(&self) -> bool {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.fault.is_some()
    }

    pub fn durability(&self) -> Durability {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.durability
    }

    pub fn guarantees(&self) -> Guarantees {
        self.seen().guarantees
    }

    /// Looks at the settings of every primary.
    pub async fn look(&self, steps: &Steps) -> Result<(), StoreError> {
        let shown = match settings(steps).await {
            Ok(shown) => Some(shown),
            // Managed servers forbid CONFIG; one that does not answer is seen by the ping.
            Err(error) if is_hidden(&error) && self.assumed != Assumed::default() => None,
            Err(error) => return Err(unavailable(&format!("CONFIG GET: {error}"))),
        };
        let can_wait = self.floor > Durability::Memory && has_waitaof(steps).await?;
        let seen = judge(shown.as_deref(), &self.assumed, self.floor, can_wait);
        if let Some(fault) = &seen.fault
            && self.seen().fault.is_none()
        {
            tracing::error!(fault, "Redis is not set up as it must be");
        }
        steps.confirmations().set(match &seen.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(seen.demand),
        });
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    fn seen(&self) -> Seen {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

fn judge(shown: Option<&[Settings]>, assumed: &Assumed, floor: Durability, can_wait: bool) -> Seen {
    let everywhere = |name: &str, value: &str| {
        shown.is_some_and(|shown| shown.iter().all(|settings| is(settings, name, value)))
    };
    let eviction = match shown {
        Some(shown) => shown.iter().find_map(eviction),
        None if assumed.noeviction => None,
        None => Some("nobody says whether Redis evicts".to_owned()),
    };
    let guarantees = Guarantees {
        eviction_policy: policy(shown, assumed),
        are_assumed: shown.is_none(),
    };
    let has_aof = shown.is_none() || everywhere("appendonly", "yes");
    let is_fsynced = match shown {
        Some(_) => has_aof && everywhere("appendfsync", "always"),
        None => assumed.fsync,
    };
    let alone = if is_fsynced {
        Durability::Fsync
    } else {
        Durability::Memory
    };
    let (durability, demand) = match floor {
        floor if floor <= alone => (alone, None),
        floor if !(has_aof && can_wait) => {
            let too_little = format!(
                "acknowledgements must survive {}, and Redis as it is set up offers {}",
                floor.name(),
                alone.name()
            );
            return Seen {
                fault: eviction.or(Some(too_little)),
                durability: alone,
                demand: None,
                guarantees,
            };
        }
        floor => {
            let replicas = u8::from(floor == Durability::ReplicatedFsync);
            (floor, Some(Demand { local: 1, replicas }))
        }
    };
    Seen {
        fault: eviction,
        durability,
        demand,
        guarantees,
    }
}

/// The worst that any primary shows.
fn policy(shown: Option<&[Settings]>, assumed: &Assumed) -> String {
    let policies = |settings: &Settings| settings.get(POLICY).cloned();
    let policy = match shown {
        Some(shown) => {
            let mut all = shown.iter().map(policies);
            let evicts = |policy: &Option<String>| policy.as_deref() != Some(NOEVICTION);
            all.find(evicts)
                .unwrap_or_else(|| Some(NOEVICTION.to_owned()))
        }
        None => assumed.noeviction.then(|| NOEVICTION.to_owned()),
    };
    policy.unwrap_or_else(|| "unknown".to_owned())
}

async fn settings(steps: &Steps) -> RedisResult<Vec<Settings>> {
    let mut config = redis::cmd("CONFIG");
    config.arg("GET");
    config.arg(&[POLICY, "appendonly", "appendfsync"]);
    let shown = timeout(RESPONSE_WAIT_MAX, steps.link().on_every_primary(&config)).await;
    let shown = shown.map_err(std::io::Error::from)??;
    let shown = shown.into_iter().map(from_redis_value);
    Ok(shown.collect::<Result<_, _>>()?)
}

/// Whether the server does not show its settings to us, now and later.
fn is_hidden(error: &RedisError) -> bool {
    let outcome = classify(&Err::<(), _>(error.clone()));
    outcome == Outcome::NotExecuted(Refusal::Never)
}

/// Whether the server can say what its append-only file, and those of its replicas, have fsynced.
async fn has_waitaof(steps: &Steps) -> Result<bool, StoreError> {
    let step = Step::command("COMMAND").arg("INFO").arg("WAITAOF").anyway();
    let known: Vec<Value> = from_redis_value(steps.value(step).await?).map_err(|_| senseless())?;
    Ok(known.iter().any(|info| *info != Value::Nil))
}

fn eviction(settings: &Settings) -> Option<String> {
    if is(settings, POLICY, NOEVICTION) {
        return None;
    }
    let policy = settings.get(POLICY);
    Some(format!(
        "Redis may drop records: maxmemory-policy is {}, and must be noeviction",
        policy.map_or("unknown", String::as_str)
    ))
}

fn is(settings: &Settings, name: &str, value: &str) -> bool {
    settings.get(name).is_some_and(|shown| shown == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_vouched_for_is_assumed() {
        let both = Assumed::parse("noeviction, fsync").unwrap();
        assert!(both.noeviction && both.fsync);
        assert_eq!(Assumed::parse("everything"), None);
    }

    fn settings(policy: &str, appendonly: &str, appendfsync: &str) -> Settings {
        let pairs = [
            ("maxmemory-policy", policy),
            ("appendonly", appendonly),
            ("appendfsync", appendfsync),
        ];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn any_policy_that_evicts_is_a_fault_on_any_primary() {
        let good = settings("noeviction", "yes", "always");
        for bad in ["allkeys-lru", "volatile-ttl"] {
            let shown = [good.clone(), settings(bad, "yes", "always")];
            let seen = judge(Some(&shown), &Assumed::default(), Durability::Memory, false);
            assert!(seen.fault.is_some_and(|fault| fault.contains(bad)));
            assert_eq!(seen.guarantees.eviction_policy, bad);
        }
        let hidden = judge(None, &Assumed::default(), Durability::Memory, false);
        assert!(hidden.fault.is_some());
    }

    #[test]
    fn the_floor_is_met_by_the_settings_or_by_waiting_or_not_at_all() {
        use Durability::{Fsync, Memory, ReplicatedFsync};
        let always = settings("noeviction", "yes", "always");
        let everysec = settings("noeviction", "yes", "everysec");
        let none = settings("noeviction", "no", "always");
        let own = Demand {
            local: 1,
            replicas: 0,
        };
        let both = Demand {
            local: 1,
            replicas: 1,
        };
        let table = [
            (&always, Memory, false, Ok((Fsync, None))),
            (&everysec, Memory, true, Ok((Memory, None))),
            (&none, Memory, true, Ok((Memory, None))),
            (&always, Fsync, false, Ok((Fsync, None))),
            (&everysec, Fsync, true, Ok((Fsync, Some(own)))),
            (&everysec, Fsync, false, Err(Memory)),
            (&none, Fsync, true, Err(Memory)),
            (
                &always,
                ReplicatedFsync,
                true,
                Ok((ReplicatedFsync, Some(both))),
            ),
            (&always, ReplicatedFsync, false, Err(Fsync)),
        ];
        for (shown, floor, can_wait, meant) in table {
            let shown = std::slice::from_ref(shown);
            let seen = judge(Some(shown), &Assumed::default(), floor, can_wait);
            let found = match seen.fault {
                None => Ok((seen.durability, seen.demand)),
                Some(_) => Err(seen.durability),
            };
            assert_eq!(found, meant, "{shown:?} {floor:?} {can_wait}");
        }
    }
}
