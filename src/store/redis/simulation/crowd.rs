//! Clients: they submit, and submit again until they are answered; some cancel, redrive or forget.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::ledger::Told;
use super::replica::Replica;
use super::world::Shared;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::retry::RetryPolicy;
use crate::domain::submission::{DedupRequest, Start, Submission};
use crate::domain::task::{Priority, TaskId};
use crate::domain::task_type::{
    Debounce, DedupMode, DedupPolicy, FilesRule, OnOlderVersion, Retention, RunnerSpec, TaskType,
};
use crate::store::{Admission, Admitted, MatchedBy, Store, StoreError};

pub struct Client {
    pub world: Shared,
    pub replicas: Vec<Arc<Replica>>,
    pub number: usize,
}

impl Client {
    pub async fn run(self) {
        let submissions = 2 + self.world.pick(6);
        for _ in 0..submissions {
            sleep(self.world.some_ms(1..3_000)).await;
            let id = self.submit().await;
            let Some((user, id, key)) = id else { continue };
            if self.world.chance(35) {
                sleep(self.world.some_ms(1..2_000)).await;
                self.meddle(user, id, key).await;
            }
        }
    }

    /// The same submission until there is an answer.
    async fn submit(&self) -> Option<(UserId, TaskId, Option<IdempotencyKey>)> {
        let user = UserId::parse(["anna", "bernd", "carla"][self.world.pick(3)]).unwrap();
        // Some contents are in conflict with each other.
        let content = self.world.pick(8) as u8;
        let (kind, dedup) = match content {
            0..3 => ("plain", DedupRequest::default()),
            3..5 => ("other", DedupRequest::default()),
            _ => ("rivals", self.conflict()),
        };
        // A key has mostly its own content.
        let key = self.world.chance(75).then(|| match self.world.chance(90) {
            true => format!("key{content}"),
            false => format!("key{}", self.world.pick(8)),
        });
        let submission = Submission {
            task_type: Arc::new(task_type(kind)),
            params: match content {
                // These never run side by side.
                1 | 2 => json!({ "content": content, "group": 1 }),
                _ => json!({ "content": content }),
            },
            files: vec![],
            priority: self.world.chance(20).then(|| Priority::new(2).unwrap()),
            start: match self.world.chance(15) && dedup.debounce.is_none() {
                true => Start::After(Duration::from_millis(1_200)),
                false => Start::Now,
            },
            dedup,
            tags: BTreeMap::new(),
            callback: None,
        };
        let named = key
            .as_ref()
            .map(|key| IdempotencyKey::parse(key.as_bytes()).unwrap());
        for _ in 0..60 {
            let request = format!("request of {}", self.number);
            let mut admission = Admission::new(
                user.clone(),
                named.clone(),
                submission.clone(),
                request.into(),
            );
            admission.task_id = self.nonce(&user);
            match self.ask(admission).await {
                Some(Ok((index, admitted))) => {
                    let id = self.answered(index, &user, &key, content, &admitted);
                    return id.map(|id| (user, id, named));
                }
                Some(Err(_)) | None => sleep(self.world.some_ms(50..1_000)).await,
            }
        }
        None
    }

    /// A mode in which all contents of the type match.
    fn conflict(&self) -> DedupRequest {
        let mode = [
            DedupMode::Replace,
            DedupMode::Debounce,
            DedupMode::Throttle,
            DedupMode::KeepLast,
        ][self.world.pick(4)];
        let delay = Duration::from_millis(800);
        DedupRequest {
            mode: Some(mode),
            window: None,
            by: Some(vec!["/nothing".to_owned()]),
            debounce: Debounce::new(delay, Some(2 * delay)).filter(|_| mode == DedupMode::Debounce),
        }
    }

    fn nonce(&self, user: &UserId) -> TaskId {
        let random = self.world.lock().rng.u128(..);
        let start = TaskId::random(user).as_str()[..4].to_owned();
        TaskId::parse(&format!("{start}{random:032x}")).unwrap()
    }

    /// One request to one replica. None: no answer came.
    async fn ask(&self, admission: Admission) -> Option<Result<(usize, Admitted), StoreError>> {
        let replica = &self.replicas[self.world.pick(self.replicas.len())];
        let process = replica.process()?;
        let (answer, told) = oneshot::channel();
        let (of, index, world) = (process.clone(), replica.index, self.world.clone());
        process.spawn(async move {
            let (epoch, root) = (of.epoch(), of.root(&admission.user));
            let admitted = of.store.admit(admission).await;
            // From here on it is acknowledged, whether or not the client hears of it. By which epoch, nobody can tell here if
            // another has begun meanwhile.
            if let Ok(admitted) = &admitted {
                let epoch = (of.epoch() == epoch).then_some(&*epoch);
                acknowledge(&world, index, epoch, &root, admitted);
            }
            let _ = answer.send(admitted.map(|admitted| (index, admitted)));
        });
        let answer = timeout(Duration::from_secs(3), told).await.ok()?.ok()?;
        (!self.world.chance(5)).then_some(answer)
    }

    fn answered(
        &self,
        replica: usize,
        user: &UserId,
        key: &Option<String>,
        content: u8,
        admitted: &Admitted,
    ) -> Option<TaskId> {
        let mut world = self.world.lock();
        world.note(|| {
            let word: String = format!("{admitted:?}").chars().take(40).collect();
            format!(
                "client {} of {replica}: {user} {key:?} {content}: {word}",
                self.number
            )
        });
        let (id, binds) = match admitted {
            Admitted::New(answer) => (&answer.task.id, true),
            Admitted::Duplicate { answer, matched_by } => {
                (&answer.task.id, *matched_by == MatchedBy::IdempotencyKey)
            }
            Admitted::KeyReused { .. } => {
                let key = key.clone().unwrap_or_default();
                let is = world.ledger.key_is(user.as_str(), &key).cloned();
                if let Some((known, id)) = is
                    && known == content
                {
                    world.fail(format!(
                        "key {key} of {id} is called reused for its own content"
                    ));
                }
                return None;
            }
            Admitted::KeyForgotten => {
                if world.ledger.forgotten.is_empty() {
                    world.fail("a key is called forgotten, and nobody forgot".to_owned());
                }
                return None;
            }
            other => {
                let why = format!("{other:?} was not to be expected");
                world.fail(why);
                return None;
            }
        };
        if let (Some(key), true) = (key, binds) {
            let world = &mut *world;
            let data = &world.servers.last().unwrap().data;
            let place = (user.as_str(), key.as_str());
            let ledger = &mut world.ledger;
            if let Err(why) = ledger.key(place, content, id.as_str(), data, world.is_fsynced) {
                world.fail(why);
            }
        }
        Some(id.clone())
    }

    async fn meddle(&self, user: UserId, id: TaskId, key: Option<IdempotencyKey>) {
        let replica = &self.replicas[self.world.pick(self.replicas.len())];
        let Some(process) = replica.process() else {
            return;
        };
        let what = self.world.pick(5);
        self.world
            .note(|| format!("client {}: meddles {what} with {id}", self.number));
        let (world, of) = (self.world.clone(), process.clone());
        process.spawn(async move {
            match what {
                0 => drop(of.store.cancel(&user, &id).await),
                4 => {
                    if let Some(key) = key {
                        drop(of.store.withdraw(&user, &id, &key).await);
                    }
                }
                1 => drop(of.store.redrive(&user, &id).await),
                2 => {
                    world.lock().ledger.forgotten.insert(id.to_string());
                    drop(of.store.forget(&user, &id).await);
                }
                _ => drop(of.store.get(&user, &id).await),
            }
        });
    }
}

fn acknowledge(
    world: &Shared,
    replica: usize,
    epoch: Option<&str>,
    root: &str,
    admitted: &Admitted,
) {
    let (id, is_new) = match admitted {
        Admitted::New(answer) => (&answer.task.id, true),
        Admitted::Duplicate { answer, .. } => (&answer.task.id, false),
        _ => return,
    };
    let mut world = world.lock();
    let world = &mut *world;
    let told = Told {
        replica,
        epoch,
        root,
        id: id.as_str(),
        is_new,
    };
    let data = &world.servers.last().unwrap().data;
    if let Err(why) = world.ledger.acknowledge(told, data, world.is_fsynced) {
        world.fail(why);
    }
}

fn task_type(name: &str) -> TaskType {
    TaskType {
        name: name.to_owned(),
        description: String::new(),
        runner: RunnerSpec::Builtin("echo".to_owned()),
        params_schema: None,
        params_check: None,
        version: 1,
        require_key: false,
        files: FilesRule::Optional,
        dedup: DedupPolicy {
            mode: DedupMode::Return,
            by: Vec::new(),
            debounce: None,
            ignore: vec![],
            file_name: false,
            group: None,
            window: Duration::from_secs(5),
            window_max: Duration::from_secs(86_400),
            max_resubmissions: 1,
            on_older_version: OnOlderVersion::Rerun,
        },
        retry: RetryPolicy {
            max_attempts: 3,
            first_delay: Duration::from_secs(1),
            factor: RetryPolicy::FACTOR,
            max_delay: RetryPolicy::MAX_DELAY,
            jitter: RetryPolicy::JITTER,
        },
        timeout: Duration::from_secs(3600),
        lease: Duration::from_secs(30),
        priority: Priority::DEFAULT,
        concurrency: None,
        concurrency_per_user: None,
        concurrency_key: Some("/group".to_owned()),
        rate: None,
        rate_per_user: None,
        ageing: Priority::AGEING,
        retention: Retention::default(),
    }
}
