//! What one user may take of the service, so that others have their share.

use std::collections::BTreeMap;
use std::time::Duration;

use super::principal::UserId;

/// Of one user; none: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a [`Quota::WINDOW`].
    pub requests_per_minute: Option<u32>,
    /// Tasks that have not ended. Deliveries of callbacks are the service's own, and nobody's use.
    pub unfinished_tasks: Option<u64>,
}

impl Quota {
    /// Begins with the first request that is counted in it.
    pub const WINDOW: Duration = Duration::from_secs(60);
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of whoever has none of their own.
    pub usual: Quota,
    pub of_users: BTreeMap<UserId, Quota>,
}

impl Quotas {
    pub fn of(&self, user: &UserId) -> Quota {
        self.of_users.get(user).copied().unwrap_or(self.usual)
    }
}

/// What became of a request that was to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Whether there was one left. What is refused is not counted.
    pub is_taken: bool,
    /// Those that are left in the window.
    pub left: u32,
    /// Until the next window can begin.
    pub resets_in: Duration,
}
