//! One step: a script, its keys and arguments, and how long its answer is waited for.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ToRedisArgs, Value};
use tokio::time::{Instant, sleep, timeout_at};

use super::link::{Commands, RESPONSE_WAIT_MAX};
use super::outcome::{Outcome, Refusal, classify};
use super::reply::Reply;
use super::scripts::Script;
use crate::store::StoreError;

/// Between two tries; doubles each time.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether a step may be taken once more when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It reads only, or it carries a nonce that makes the repeat answer as before.
    Safe,
    Never,
}

pub struct Step {
    script: Option<&'static Script>,
    cmd: Cmd,
    repeat: Repeat,
}

impl Step {
    pub fn new(script: &'static Script, keys: &[&str]) -> Self {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&script.sha1).arg(keys.len()).arg(keys);
        Step {
            script: Some(script),
            cmd,
            repeat: Repeat::Safe,
        }
    }

    /// A single command that reads.
    pub fn command(name: &str) -> Self {
        Step {
            script: None,
            cmd: redis::cmd(name),
            repeat: Repeat::Safe,
        }
    }

    pub fn never_repeated(mut self) -> Self {
        self.repeat = Repeat::Never;
        self
    }

    pub fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    pub fn also(&mut self, arg: impl ToRedisArgs) {
        self.cmd.arg(arg);
    }
}

/// Takes steps. Waits for each at most [`RESPONSE_WAIT_MAX`], repeats included.
#[derive(Clone)]
pub struct Steps {
    link: Arc<dyn Commands>,
}

impl Steps {
    pub fn new(link: Arc<dyn Commands>) -> Self {
        Steps { link }
    }

    /// The words of the answer.
    pub async fn take(&self, step: Step) -> Result<Reply, StoreError> {
        self.value(step).await.and_then(Reply::of)
    }

    pub async fn value(&self, step: Step) -> Result<Value, StoreError> {
        let deadline = Instant::now() + RESPONSE_WAIT_MAX;
        let mut pause = PAUSE;
        loop {
            let answer = timeout_at(deadline, self.link.run(&step.cmd)).await;
            let Ok(answer) = answer else {
                return Err(unavailable("no answer in time, outcome unknown"));
            };
            let outcome = classify(&answer);
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = match outcome {
                Outcome::NotExecuted(Refusal::Full) => return Err(StoreError::Full),
                Outcome::NotExecuted(Refusal::NoScript) => {
                    self.load(step.script, deadline).await;
                    true
                }
                Outcome::NotExecuted(Refusal::Later) => true,
                Outcome::NotExecuted(Refusal::Never) => false,
                Outcome::Unknown | Outcome::Done => {
                    step.repeat == Repeat::Safe && error.is_unrecoverable_error()
                }
            };
            if !again || Instant::now() + pause >= deadline {
                let name = step.script.map_or("a command", |script| script.name);
                return Err(unavailable(&format!("{name}: {error}")));
            }
            if outcome != Outcome::NotExecuted(Refusal::NoScript) {
                sleep(pause).await;
                pause *= 2;
            }
        }
    }

    async fn load(&self, script: Option<&'static Script>, deadline: Instant) {
        let Some(script) = script else { return };
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(&script.text);
        // Whether it worked is seen when the step is taken again.
        if let Ok(Err(error)) = timeout_at(deadline, self.link.run(&cmd)).await {
            tracing::warn!(script = script.name, %error, "a script was not loaded");
            sleep(PAUSE).await;
        }
    }
}

pub fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}
