//! How often streams look at tasks: what followers may cost those who submit.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Looks at one task, by all streams of this replica together, are so far apart: 1,000 a second at most. Whoever
/// comes later is told more at once.
const APART: Duration = Duration::from_millis(1);

/// Shared by all streams.
#[derive(Debug)]
pub struct Pace(Mutex<Instant>);

impl Default for Pace {
    fn default() -> Self {
        Pace(Mutex::new(Instant::now()))
    }
}

impl Pace {
    /// Waits for the turn to go on after so many tasks, of which `of_a_look` cost as much as a look; not after few.
    pub async fn turn_for(&self, tasks: usize, of_a_look: usize) {
        let looks = tasks / of_a_look;
        if looks > 0 {
            self.turn(u32::try_from(looks).unwrap_or(u32::MAX)).await;
        }
    }

    /// Waits for the turn to look at so many tasks.
    pub async fn turn(&self, tasks: u32) {
        let now = Instant::now();
        let turn = {
            let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(now);
            *next = turn + APART * tasks;
            turn
        };
        if turn > now {
            sleep_until(turn).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_look_together_take_turns_and_one_alone_need_not_wait() {
        let pace = Pace::default();
        let began = Instant::now();
        pace.turn(1).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        futures_util::future::join_all((0..2_000).map(|_| pace.turn(1))).await;
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(1_999) && took < Duration::from_millis(2_200),
            "{took:?}"
        );
        tokio::time::sleep(Duration::from_secs(9)).await;
        let began = Instant::now();
        pace.turn(200).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        pace.turn(1).await;
        assert!(began.elapsed() >= Duration::from_millis(200));
    }
}
