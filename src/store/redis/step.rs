//! One step: a script, its keys and arguments, and how long its answer is waited for.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, ToRedisArgs, Value};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::confirmations::{ANOTHER, Confirmations};
use super::keys::Partition;
use super::leases::expect;
use super::link::{Commands, RESPONSE_WAIT_MAX};
use super::marks::{Known, Marks};
use super::outcome::{Outcome, Refusal, classify};
use super::reply::Reply;
use super::scripts::{Kind, MARK, PRESENT, Script};
use super::server::Server;
use super::silence::{Silence, Why};
use crate::failpoints::FailPoint;
use crate::seeded_faults::SeededFault;
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
    /// Whose mark it raises or looks at.
    place: Option<Place>,
    /// Whether it is taken even if state is lost, or Redis silent.
    anyway: bool,
}

/// A partition, and what its keys begin with.
struct Place {
    partition: Partition,
    root: String,
}

impl Step {
    /// The first key of a script that works on a partition is the partition's root.
    pub fn new(script: &'static Script, keys: &[&str]) -> Self {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&script.sha1).arg(keys.len()).arg(keys);
        let root = keys.first().filter(|_| script.kind != Kind::Apart);
        let place = |root: &&str| {
            Some(Place {
                partition: Partition::of_key(root)?,
                root: (*root).to_owned(),
            })
        };
        Step {
            script: Some(script),
            cmd,
            repeat: Repeat::Safe,
            place: root.and_then(place),
            anyway: false,
        }
    }

    /// A single command that reads.
    pub fn command(name: &str) -> Self {
        Step {
            script: None,
            cmd: redis::cmd(name),
            repeat: Repeat::Safe,
            place: None,
            anyway: false,
        }
    }

    pub fn never_repeated(mut self) -> Self {
        self.repeat = Repeat::Never;
        self
    }

    pub fn anyway(mut self) -> Self {
        self.anyway = true;
        self
    }

    pub fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    pub fn also(&mut self, arg: impl ToRedisArgs) {
        self.cmd.arg(arg);
    }

    /// With what this replica has been told by now, at each try anew.
    fn as_of(&self, known: &Known) -> Cmd {
        let mut cmd = self.cmd.clone();
        if let Some(place) = &self.place {
            cmd.arg(known.name()).arg(known.floor(place.partition));
        }
        cmd
    }

    fn promises(&self) -> bool {
        self.script.is_some_and(|script| script.kind.promises())
    }

    /// A server that cannot write may still read.
    fn writes(&self) -> bool {
        self.script.is_some_and(|script| script.kind != Kind::Reads)
    }

    fn partition(&self) -> Option<Partition> {
        self.place.as_ref().map(|place| place.partition)
    }

    fn name(&self) -> &'static str {
        self.script.map_or("a command", |script| script.name)
    }
}

/// Takes steps. Waits for each at most [`RESPONSE_WAIT_MAX`], repeats included.
#[derive(Clone)]
pub struct Steps {
    link: Arc<dyn Commands>,
    marks: Arc<Marks>,
    silence: Arc<Silence>,
    confirmations: Arc<Confirmations>,
}

impl Steps {
    /// `waiting`: connections on which a command may keep others waiting.
    pub fn new(link: Arc<dyn Commands>, waiting: Arc<dyn Commands>, marks: Arc<Marks>) -> Self {
        Steps {
            silence: Arc::new(Silence::new(link.is_one_server())),
            confirmations: Arc::new(Confirmations::new(waiting)),
            link,
            marks,
        }
    }

    pub fn link(&self) -> &Arc<dyn Commands> {
        &self.link
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    pub fn shared_marks(&self) -> Arc<Marks> {
        self.marks.clone()
    }

    pub fn silence(&self) -> &Silence {
        &self.silence
    }

    pub fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// The words of the answer.
    pub async fn take(&self, step: Step) -> Result<Reply, StoreError> {
        self.value(step).await.and_then(Reply::of)
    }

    pub async fn value(&self, step: Step) -> Result<Value, StoreError> {
        if !step.anyway {
            self.may_be_taken(&step)?;
        }
        let (value, _) = self.value_as_of(&self.marks.known(), step).await?;
        Ok(value)
    }

    /// The words of the answer, and who has given it.
    pub async fn take_from(&self, step: Step) -> Result<(Reply, Server), StoreError> {
        self.may_be_taken(&step)?;
        let (value, server) = self.value_as_of(&self.marks.known(), step).await?;
        Ok((Reply::of(value)?, server))
    }

    async fn value_as_of(
        &self,
        known: &Arc<Known>,
        step: Step,
    ) -> Result<(Value, Server), StoreError> {
        let deadline = Instant::now() + RESPONSE_WAIT_MAX;
        let (answer, server) = self.answer(&step, known, deadline).await?;
        let Some(Place { partition, root }) = &step.place else {
            return Ok((answer, server));
        };
        let mut marked = Reply::of(answer)?;
        let mark = marked.number()?;
        if step.promises() {
            let confirmed = self.confirmed(known, (*partition, root), mark, server.clone());
            match timeout_at(deadline, confirmed).await {
                Ok(confirmed) => drop(confirmed?),
                Err(_) => return Err(unavailable("written, and not confirmed in time")),
            }
            known.saw(*partition, mark);
        }
        Ok((marked.value()?, server))
    }

    /// Takes a step for what is known of another epoch than the replica goes on in.
    pub async fn take_as_of(&self, known: &Arc<Known>, step: Step) -> Result<Reply, StoreError> {
        let (value, _) = self.value_as_of(known, step).await?;
        Reply::of(value)
    }

    /// Returns when all that the partition's server has written by now is where acknowledgements must be. With which server
    /// that is.
    pub async fn confirm_all(&self, root: &str) -> Result<Server, StoreError> {
        let Some(partition) = Partition::of_key(root) else {
            return Ok(Server::default());
        };
        let known = self.marks.known();
        let told = known.floor(partition);
        let confirmed = self.confirmed(&known, (partition, root), told, Server::default());
        match timeout(RESPONSE_WAIT_MAX, confirmed).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(unavailable("read, and not confirmed in time")),
        }
    }

    async fn confirmed(
        &self,
        known: &Arc<Known>,
        place: (Partition, &str),
        mark: u64,
        server: Server,
    ) -> Result<Server, StoreError> {
        if SeededFault::RedisConfirmationSkipped.is_on() {
            return Ok(server);
        }
        let confirmed = self.confirmations.confirm(known, place, mark, server);
        confirmed.await.inspect_err(|error| match error {
            StoreError::StateLost => self.marks.lose(known),
            StoreError::Unavailable(why) if why == ANOTHER => self.link.connect_anew(),
            _ => {}
        })
    }

    /// Raises the mark of a partition, and promises nothing: Redis takes writes there.
    pub async fn mark(&self, root: &str) -> Result<u64, StoreError> {
        let step = Step::new(&MARK, &[root]).anyway();
        let partition = step.partition();
        let marked = self.take(step).await;
        if !matches!(marked, Err(StoreError::Unavailable(_))) && self.silence.end(partition) {
            tracing::info!("Redis answers again");
        }
        let mut marked = marked?;
        expect(&mut marked, "marked")?;
        marked.number()
    }

    /// What was not found in a partition was not lost there, as far as this replica was told.
    pub async fn misses_nothing(&self, root: &str) -> Result<(), StoreError> {
        let mut reply = self.take(Step::new(&PRESENT, &[root])).await?;
        expect(&mut reply, "present")
    }

    fn may_be_taken(&self, step: &Step) -> Result<(), StoreError> {
        if self.marks.is_lost() {
            return Err(StoreError::StateLost);
        }
        match self.silence.why(step.partition()) {
            None => {}
            Some(Why::TakesNoWrites) if !step.writes() => {}
            Some(why) => return Err(unavailable(why.text())),
        }
        if step.promises() {
            self.confirmations.demand()?;
        }
        Ok(())
    }

    async fn answer(
        &self,
        step: &Step,
        known: &Arc<Known>,
        deadline: Instant,
    ) -> Result<(Value, Server), StoreError> {
        let (mut pause, began) = (PAUSE, Instant::now());
        loop {
            let cmd = step.as_of(known);
            FailPoint::BeforeScript.reached();
            let answer = timeout_at(deadline, self.link.run(&cmd)).await;
            FailPoint::AfterScript.reached();
            let Ok(answer) = answer else {
                self.has_failed(step, began, Why::NoAnswer);
                return Err(unavailable("no answer in time, outcome unknown"));
            };
            let outcome = classify(&answer);
            let error = match answer {
                Ok(answered) => {
                    if step.writes() {
                        self.silence.answered(step.partition());
                    }
                    return Ok(answered);
                }
                Err(error) => error,
            };
            let again = match outcome {
                Outcome::NotExecuted(Refusal::StateLost) => {
                    self.marks.lose(known);
                    return Err(StoreError::StateLost);
                }
                Outcome::NotExecuted(Refusal::Full | Refusal::Never) => {
                    // It is there, and reads may go on.
                    self.silence.end(step.partition());
                    return Err(unavailable(&format!("{}: {error}", step.name())));
                }
                Outcome::NotExecuted(Refusal::NoScript) => {
                    self.load(step.script, deadline).await;
                    true
                }
                Outcome::NotExecuted(Refusal::Later) => true,
                Outcome::Unknown | Outcome::Done => {
                    step.repeat == Repeat::Safe && error.is_unrecoverable_error()
                }
            };
            if !again {
                return Err(unavailable(&format!("{}: {error}", step.name())));
            }
            if Instant::now() + pause >= deadline {
                let answers = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
                self.has_failed(
                    step,
                    began,
                    if answers {
                        Why::TakesNoWrites
                    } else {
                        Why::NoAnswer
                    },
                );
                return Err(unavailable(&format!("{}: {error}", step.name())));
            }
            if outcome != Outcome::NotExecuted(Refusal::NoScript) {
                sleep(pause).await;
                pause *= 2;
            }
        }
    }

    /// The whole wait was in vain: nobody else waits until Redis takes writes again.
    fn has_failed(&self, step: &Step, began: Instant, why: Why) {
        if self.silence.begin(step.partition(), began, why) {
            tracing::warn!("{}", why.text());
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
