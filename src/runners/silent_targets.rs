//! Targets that let messages wait until their time is over. While one does, only few wait for it at a time, and what
//! comes on top fails at once, to be tried again later: others have their turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moka::sync::Cache;
use url::Url;

use crate::domain::principal::UserId;

/// Cheap to clone; all clones know the same.
#[derive(Clone)]
pub struct SilentTargets(Cache<Target, Arc<Mutex<Standing>>>);

/// Of each user by itself, so that nobody's addresses are in the way of another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Target {
    user: UserId,
    host: String,
    port: Option<u16>,
}

#[derive(Debug, Default)]
struct Standing {
    /// Messages that have waited in vain since it last said anything.
    in_vain: u32,
    waiting: usize,
}

/// A message that waits for its target.
pub struct Wait(Arc<Mutex<Standing>>);

/// From so many messages in vain on, a target is silent.
const IN_VAIN_MAX: u32 = 8;
/// Messages that wait for a silent target at a time.
const WAITING_MAX: usize = 8;
/// Targets that are remembered; what is not is not silent.
const TARGETS_MAX: u64 = 10_000;

impl Default for SilentTargets {
    fn default() -> Self {
        SilentTargets(Cache::new(TARGETS_MAX))
    }
}

impl SilentTargets {
    /// None where the target is silent, and enough messages wait for it.
    pub fn wait(&self, user: &UserId, url: &Url) -> Option<Wait> {
        let target = Target {
            user: user.clone(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default(),
        };
        let standing = self.0.get_with(target, Arc::default);
        {
            let mut standing = lock(&standing);
            if standing.in_vain >= IN_VAIN_MAX && standing.waiting >= WAITING_MAX {
                return None;
            }
            standing.waiting += 1;
        }
        Some(Wait(standing))
    }
}

impl Wait {
    /// `in_vain`: the time was over before the target said anything.
    pub fn over(self, in_vain: bool) {
        let mut standing = lock(&self.0);
        standing.in_vain = match in_vain {
            true => standing.in_vain.saturating_add(1),
            false => 0,
        };
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut standing = lock(&self.0);
        standing.waiting = standing.waiting.saturating_sub(1);
    }
}

fn lock(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_wait_for_a_silent_target_until_it_speaks() {
        let targets = SilentTargets::default();
        let (one, other) = (
            UserId::parse("one").unwrap(),
            UserId::parse("other").unwrap(),
        );
        let url = Url::parse("https://a.example/x").unwrap();
        let same = Url::parse("https://a.example:443/y").unwrap();
        let another = Url::parse("https://a.example:444/x").unwrap();
        let many: Vec<_> = (0..100)
            .map(|_| targets.wait(&one, &url).unwrap())
            .collect();
        for wait in many {
            wait.over(true);
        }
        let mut few: Vec<_> = (0..WAITING_MAX)
            .map(|_| targets.wait(&one, &same).unwrap())
            .collect();
        assert!(targets.wait(&one, &url).is_none());
        assert!(targets.wait(&other, &url).is_some() && targets.wait(&one, &another).is_some());
        // One that was given up makes room, and says nothing of the target.
        drop(few.pop());
        let again = targets.wait(&one, &url).unwrap();
        assert!(targets.wait(&one, &url).is_none());
        again.over(false);
        let more: Vec<_> = (0..100).map(|_| targets.wait(&one, &url)).collect();
        assert!(more.iter().all(Option::is_some));
    }
}
