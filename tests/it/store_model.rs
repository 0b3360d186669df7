//! Random histories, played against a store and against a model that is small enough to be seen to be right.

use std::collections::HashMap;
use std::time::Duration;

use justonce::domain::task::{State, TaskId};
use justonce::store::{Admitted, Cancelled, Fenced, Forgotten, Found, Lease, MatchedBy, Missing};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::support::store::{Draft, LONG, Subject, draft_of, memory, plain_type, redis, user};

#[derive(Clone, Debug)]
enum Step {
    Admit {
        key: Option<u8>,
        content: u8,
    },
    Lease,
    /// The `usize` picks a lease or a task, the newest more often than the oldest.
    Complete(usize),
    Fail {
        lease: usize,
        permanent: bool,
    },
    Release(usize),
    Cancel(usize),
    Forget(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let pick = || prop_oneof![3 => 0..2usize, 1 => 0..12usize];
    prop_oneof![
        6 => (proptest::option::of(0..3u8), 0..3u8).prop_map(|(key, content)| Step::Admit { key, content }),
        4 => Just(Step::Lease),
        3 => pick().prop_map(Step::Complete),
        3 => (pick(), any::<bool>()).prop_map(|(lease, permanent)| Step::Fail { lease, permanent }),
        1 => pick().prop_map(Step::Release),
        1 => pick().prop_map(Step::Cancel),
        1 => pick().prop_map(Step::Forget),
    ]
}

#[test]
fn a_store_agrees_with_the_model_over_random_histories() {
    play_against(memory);
}

#[test]
fn redis_agrees_with_the_model_over_random_histories() {
    play_against(redis);
}

fn play_against<F: Future<Output = Subject>>(store: fn() -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let histories = proptest::collection::vec(step(), 1..80);
    let played = TestRunner::new(config).run(&histories, |steps| {
        runtime.block_on(async {
            let mut game = Game {
                subject: store().await,
                model: Model::default(),
            };
            for step in steps {
                game.play(step).await;
            }
            game.subject.home.expect_sound().await;
        });
        Ok(())
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}

/// Attempts of every task in the model.
const MAX_ATTEMPTS: u32 = 2;

#[derive(Default)]
struct Model {
    tasks: Vec<ModelTask>,
    /// By key: the task that it names, and the content that it came with.
    keys: HashMap<u8, (usize, u8)>,
    /// Every lease that was ever given.
    leases: Vec<(usize, Lease)>,
}

#[derive(Debug)]
struct ModelTask {
    id: TaskId,
    content: u8,
    state: ModelState,
    attempt: u32,
    /// The lease that may record something, if any.
    holder: Option<usize>,
    /// The lease that recorded the completion.
    completed_by: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ModelState {
    /// Queued, or waits for a retry that is due at once.
    Ready,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Forgotten,
}

impl ModelTask {
    fn blocks(&self) -> bool {
        match self.state {
            ModelState::Ready | ModelState::Running | ModelState::Succeeded => true,
            ModelState::Cancelled => self.holder.is_some(),
            ModelState::Failed | ModelState::Forgotten => false,
        }
    }

    fn is_ended(&self) -> bool {
        !matches!(self.state, ModelState::Ready | ModelState::Running)
    }
}

struct Game {
    subject: Subject,
    model: Model,
}

impl Game {
    async fn play(&mut self, step: Step) {
        match step {
            Step::Admit { key, content } => self.admit(key, content).await,
            Step::Lease => self.lease().await,
            Step::Complete(pick) => self.complete(pick).await,
            Step::Fail { lease, permanent } => self.fail(lease, permanent).await,
            Step::Release(pick) => self.release(pick).await,
            Step::Cancel(pick) => self.cancel(pick).await,
            Step::Forget(pick) => self.forget(pick).await,
        }
        self.compare().await;
    }

    async fn admit(&mut self, key: Option<u8>, content: u8) {
        let answer = self.subject.admit(&submission(key, content)).await;
        let model = &mut self.model;
        if let Some(&(task, recorded)) = key.and_then(|key| model.keys.get(&key)) {
            let forgotten = model.tasks[task].state == ModelState::Forgotten;
            match answer {
                Admitted::KeyReused { .. } => assert_ne!(recorded, content),
                Admitted::KeyForgotten => assert!(forgotten),
                Admitted::Duplicate { answer, matched_by } => {
                    assert!(recorded == content && !forgotten);
                    assert_eq!(matched_by, MatchedBy::IdempotencyKey);
                    assert_eq!(answer.task.id, model.tasks[task].id);
                }
                other => panic!("a known key was answered with {other:?}"),
            }
            return;
        }
        let blocking = model
            .tasks
            .iter()
            .position(|t| t.content == content && t.blocks());
        let task = match (answer, blocking) {
            (Admitted::Duplicate { answer, matched_by }, Some(task)) => {
                assert_eq!(matched_by, MatchedBy::Fingerprint);
                assert_eq!(answer.task.id, model.tasks[task].id);
                task
            }
            (Admitted::New(answer), None) => {
                let id = answer.task.id.clone();
                model.tasks.push(ModelTask {
                    id,
                    content,
                    state: ModelState::Ready,
                    attempt: 0,
                    holder: None,
                    completed_by: None,
                });
                model.tasks.len() - 1
            }
            (other, blocking) => panic!("{other:?} while {blocking:?} blocks"),
        };
        // A key does not follow an attempt that is to stop: it stays free for the work anew.
        let stops = model.tasks[task].state == ModelState::Cancelled;
        if let Some(key) = key.filter(|_| !stops) {
            model.keys.insert(key, (task, content));
        }
    }

    async fn lease(&mut self) {
        self.subject.rescue().await;
        let lease = self.subject.lease_many(1, LONG).await.pop();
        let ready = |t: &ModelTask| t.state == ModelState::Ready;
        let Some(lease) = lease else {
            assert!(
                !self.model.tasks.iter().any(ready),
                "a ready task was not leased"
            );
            return;
        };
        let index = self.model.leases.len();
        let task = self.position(&lease.task.id);
        let leased = &mut self.model.tasks[task];
        assert_eq!(leased.state, ModelState::Ready);
        leased.state = ModelState::Running;
        leased.attempt += 1;
        leased.holder = Some(index);
        assert_eq!(lease.task.attempt, leased.attempt);
        let older = self.model.leases.iter().filter(|(of, _)| *of == task);
        assert!(older.clone().all(|(_, older)| older.token < lease.token));
        self.model.leases.push((task, lease));
    }

    async fn complete(&mut self, pick: usize) {
        let Some((index, task, lease)) = self.pick_lease(pick) else {
            return;
        };
        let answer = self.subject.complete(&lease, "1").await;
        let held = &mut self.model.tasks[task];
        let running = held.state == ModelState::Running && held.holder == Some(index);
        if running {
            held.state = ModelState::Succeeded;
            held.holder = None;
            held.completed_by = Some(index);
        } else if held.state == ModelState::Cancelled && held.holder == Some(index) {
            // Refused, but it says that the attempt is over.
            held.holder = None;
        }
        let repeat = held.completed_by == Some(index) && held.state == ModelState::Succeeded;
        assert_eq!(
            matches!(answer, Fenced::Recorded(_)),
            running || repeat,
            "{held:?}"
        );
    }

    async fn fail(&mut self, pick: usize, permanent: bool) {
        let Some((index, task, lease)) = self.pick_lease(pick) else {
            return;
        };
        let retry_in = (!permanent).then_some(Duration::ZERO);
        let answer = self.subject.fail(&lease, retry_in).await;
        let held = &mut self.model.tasks[task];
        if held.holder == Some(index) {
            assert!(matches!(answer, Fenced::Recorded(_)), "{held:?}");
            held.holder = None;
            if held.state == ModelState::Running {
                let over = permanent || held.attempt == MAX_ATTEMPTS;
                held.state = if over {
                    ModelState::Failed
                } else {
                    ModelState::Ready
                };
            }
        }
        // A repeat may be recorded or refused: either way it changes nothing, as the comparison sees.
    }

    async fn release(&mut self, pick: usize) {
        let Some((index, task, lease)) = self.pick_lease(pick) else {
            return;
        };
        let held = crate::support::store::held(&lease);
        let answer = self.subject.store.release(held).await.unwrap();
        let held = &mut self.model.tasks[task];
        if held.holder == Some(index) && held.state == ModelState::Running {
            assert!(matches!(answer, Fenced::Recorded(())));
            held.holder = None;
            held.attempt -= 1;
            held.state = ModelState::Ready;
        } else if held.holder == Some(index) {
            // Handing back a cancelled attempt says that it has stopped.
            held.holder = None;
            assert!(matches!(answer, Fenced::Recorded(())), "{held:?}");
        }
    }

    async fn cancel(&mut self, pick: usize) {
        let Some(task) = self.pick_task(pick) else {
            return;
        };
        let answer = self
            .subject
            .store
            .cancel(&user(), &self.model.tasks[task].id)
            .await
            .unwrap();
        let task = &mut self.model.tasks[task];
        match (task.state, answer) {
            (ModelState::Ready | ModelState::Running, Cancelled::Done { stopping, .. }) => {
                assert_eq!(stopping, task.state == ModelState::Running);
                task.state = ModelState::Cancelled;
            }
            (ModelState::Forgotten, Cancelled::Unknown(Missing::Forgotten)) => {}
            (ModelState::Cancelled, Cancelled::Done { stopping, .. }) => {
                assert_eq!(stopping, task.holder.is_some(), "{task:?}");
            }
            (ModelState::Succeeded | ModelState::Failed, Cancelled::Ended(_)) => {}
            (_, answer) => panic!("{task:?} was answered with {answer:?}"),
        }
    }

    async fn forget(&mut self, pick: usize) {
        let Some(task) = self.pick_task(pick) else {
            return;
        };
        let stopping = |t: &ModelTask| t.state == ModelState::Cancelled && t.holder.is_some();
        if stopping(&self.model.tasks[task]) {
            return;
        }
        let answer = self
            .subject
            .store
            .forget(&user(), &self.model.tasks[task].id)
            .await
            .unwrap();
        let task = &mut self.model.tasks[task];
        match answer {
            Forgotten::Done { .. } => {
                assert!(task.is_ended(), "{task:?}");
                task.state = ModelState::Forgotten;
            }
            Forgotten::Unfinished => assert!(!task.is_ended(), "{task:?}"),
            Forgotten::Unknown(_) => assert_eq!(task.state, ModelState::Forgotten),
        }
    }

    /// After every step, every task is as the model says.
    async fn compare(&self) {
        for task in &self.model.tasks {
            let found = self.subject.store.get(&user(), &task.id).await.unwrap();
            let found = match (found, task.state) {
                (Found::Missing(Missing::Forgotten), ModelState::Forgotten) => continue,
                (Found::Here(found), _) => found,
                (found, _) => panic!("{found:?} for {task:?}"),
            };
            let agrees = match task.state {
                ModelState::Ready => matches!(found.state, State::Queued | State::Retrying),
                ModelState::Running => found.state == State::Running,
                ModelState::Succeeded => found.state == State::Succeeded,
                ModelState::Failed => found.state == State::Failed,
                ModelState::Cancelled => found.state == State::Cancelled,
                ModelState::Forgotten => false,
            };
            assert!(agrees, "{:?} for {task:?}", found.state);
            assert_eq!(found.attempt, task.attempt, "{task:?}");
        }
    }

    fn position(&self, id: &TaskId) -> usize {
        let found = self.model.tasks.iter().position(|task| task.id == *id);
        found.expect("a leased task was admitted")
    }

    fn pick_lease(&self, pick: usize) -> Option<(usize, usize, Lease)> {
        let index = self.model.leases.len().checked_sub(1 + pick)?;
        let (task, lease) = &self.model.leases[index];
        Some((index, *task, lease.clone()))
    }

    fn pick_task(&self, pick: usize) -> Option<usize> {
        self.model.tasks.len().checked_sub(1 + pick)
    }
}

fn submission(key: Option<u8>, content: u8) -> Draft {
    let mut limited = plain_type();
    limited.retry.max_attempts = MAX_ATTEMPTS;
    limited.dedup.max_resubmissions = 10_000;
    let draft = draft_of(limited, json!({"content": content}));
    match key {
        Some(key) => draft.key(&format!("k{key}")),
        None => draft,
    }
}
