//! When a failed attempt is tried again.

use std::time::Duration;

/// Exponential backoff: `first_delay`, then `factor` times as long after every further failure,
/// at most `max_delay`, each spread by ± `jitter`.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    pub first_delay: Duration,
    pub factor: f64,
    pub max_delay: Duration,
    /// A share of the delay, 0.0 to 1.0.
    pub jitter: f64,
}

impl RetryPolicy {
    pub const FACTOR: f64 = 2.0;
    pub const MAX_DELAY: Duration = Duration::from_secs(3600);
    pub const JITTER: f64 = 0.1;

    /// The wait after the `failures`-th failure in a row (from 1). `chance` in 0.0..1.0 spreads it.
    pub fn delay(&self, failures: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first_delay.as_secs_f64() * self.factor.powi(exponent);
        let seconds = seconds.min(self.max_delay.as_secs_f64());
        let spread = 1.0 + self.jitter * (2.0 * chance - 1.0);
        Duration::from_secs_f64((seconds * spread).max(0.0))
    }

    /// The wait after a failed `attempt` of a task that has `max_attempts` by now: a redrive begins a new
    /// budget of attempts, and the delays begin anew with it.
    pub fn backoff(&self, attempt: u32, max_attempts: u32, chance: f64) -> Duration {
        let before_budget = max_attempts.saturating_sub(self.max_attempts);
        let failures = attempt.saturating_sub(before_budget).max(1);
        self.delay(failures, chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 4,
            first_delay: Duration::from_secs(60),
            factor: RetryPolicy::FACTOR,
            max_delay: RetryPolicy::MAX_DELAY,
            jitter: RetryPolicy::JITTER,
        }
    }

    #[test]
    fn a_redrive_begins_the_delays_anew() {
        let seconds = |attempt, max| policy().backoff(attempt, max, 0.5).as_secs();
        assert_eq!([seconds(1, 4), seconds(3, 4)], [60, 240]);
        assert_eq!([seconds(5, 8), seconds(6, 8)], [60, 120]);
    }

    #[test]
    fn delays_double_up_to_their_cap_and_stay_within_the_jitter() {
        let policy = policy();
        let middle = |failures| policy.delay(failures, 0.5).as_secs();
        assert_eq!([middle(1), middle(2), middle(3)], [60, 120, 240]);
        assert_eq!(middle(50), 3600);
        assert_eq!(middle(u32::MAX), 3600);
        assert_eq!(policy.delay(1, 0.0), Duration::from_secs(54));
        assert!(policy.delay(1, 0.999_999) <= Duration::from_secs(66));
    }
}
