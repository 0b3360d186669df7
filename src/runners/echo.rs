//! The task type that is always there: its result is its params.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::runner::{Attempt, AttemptError, Load, Runner, Success};

/// `sleep_ms` waits first, `fail_times` fails that many attempts, `fail_permanently` fails for good.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

#[async_trait]
impl Runner for Echo {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        let wishes = Wishes::read(attempt.task.params.get());
        if !wishes.sleep.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wishes.sleep) => {}
                () = attempt.cancel.cancelled() => return Err(AttemptError::stopped()),
            }
        }
        if wishes.fail_permanently {
            return Err(AttemptError::permanent(
                "echo-failed",
                "failed for good, as params ask",
            ));
        }
        if f64::from(attempt.task.attempt) <= wishes.fail_times {
            return Err(AttemptError::retryable(
                "echo-failed",
                "failed, as params ask",
            ));
        }
        Ok(RawValue::to_owned(&attempt.task.params).into())
    }

    fn load(&self) -> Load {
        Load::Waiting
    }
}

struct Wishes {
    sleep: Duration,
    fail_times: f64,
    fail_permanently: bool,
}

impl Wishes {
    /// As long as `sleep_ms` may be: one day.
    const SLEEP_MS_MAX: f64 = 86_400_000.0;

    /// The schema has been checked at admission; what an operator's own schema lets through counts for nothing.
    fn read(params: &str) -> Wishes {
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let number = |name: &str| params[name].as_f64().unwrap_or(0.0);
        let sleep_ms = number("sleep_ms").clamp(0.0, Self::SLEEP_MS_MAX);
        Wishes {
            sleep: Duration::from_secs_f64(sleep_ms / 1000.0),
            fail_times: number("fail_times"),
            fail_permanently: params["fail_permanently"].as_bool().unwrap_or(false),
        }
    }
}
