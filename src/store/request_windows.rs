//! The requests of users, counted in this process: for stores that only one process uses.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::domain::principal::UserId;
use crate::domain::quota::{Quota, Spent};

#[derive(Default)]
pub struct RequestWindows(Mutex<Windows>);

#[derive(Default)]
struct Windows {
    of_users: HashMap<UserId, Window>,
    /// When those that are over were last let go.
    swept_at: Option<Instant>,
}

struct Window {
    began_at: Instant,
    used: u32,
}

impl RequestWindows {
    pub fn spend(&self, user: &UserId, max: u32, now: Instant) -> Spent {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.sweep(now);
        let fresh = || Window {
            began_at: now,
            used: 0,
        };
        let window = windows.of_users.entry(user.clone()).or_insert_with(fresh);
        if window.is_over(now) {
            *window = fresh();
        }
        let is_taken = window.used < max;
        window.used += u32::from(is_taken);
        Spent {
            is_taken,
            left: max.saturating_sub(window.used),
            resets_in: Quota::WINDOW.saturating_sub(now.saturating_duration_since(window.began_at)),
        }
    }
}

impl Windows {
    /// So that no more are kept than users have come in the last two of them.
    fn sweep(&mut self, now: Instant) {
        let swept_at = *self.swept_at.get_or_insert(now);
        if now.saturating_duration_since(swept_at) >= Quota::WINDOW {
            self.of_users.retain(|_, window| !window.is_over(now));
            self.swept_at = Some(now);
        }
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began_at) >= Quota::WINDOW
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_window_begins_with_its_first_request_and_what_is_refused_is_not_counted() {
        let windows = RequestWindows::default();
        let [ann, bob] = ["ann", "bob"].map(|name| UserId::parse(name).unwrap());
        let began_at = Instant::now();
        let at = |seconds| began_at + Duration::from_secs(seconds);
        let spend = |user, seconds| {
            let spent = windows.spend(user, 2, at(seconds));
            (spent.is_taken, spent.left, spent.resets_in.as_secs())
        };
        assert_eq!(spend(&ann, 0), (true, 1, 60));
        assert_eq!(spend(&ann, 10), (true, 0, 50));
        assert_eq!(spend(&ann, 59), (false, 0, 1));
        assert_eq!(spend(&bob, 59), (true, 1, 60));
        assert_eq!(spend(&ann, 60), (true, 1, 60));
    }

    #[test]
    fn windows_that_are_over_are_let_go() {
        let windows = RequestWindows::default();
        let began_at = Instant::now();
        for n in 0..1000_u64 {
            let user = UserId::parse(&format!("u{n}")).unwrap();
            windows.spend(&user, 1, began_at + Duration::from_secs(n));
        }
        assert!(windows.0.lock().unwrap().of_users.len() <= 121);
    }
}
