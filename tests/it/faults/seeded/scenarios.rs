//! Short scenarios, each made for some faults of the code. Sound code passes them.

use std::net::SocketAddr;
use std::time::Duration;

use justonce::domain::task::State;
use justonce::store::StoreError;
use serde_json::json;

use crate::faults::fault::{Class, Plan};
use crate::faults::modes::load;
use crate::faults::nemesis::Enough;
use crate::faults::resp_proxy::{Chances, RespProxy};
use crate::faults::seed::Seed;
use crate::faults::stage::Stage;
use crate::faults::trial::Trial;
use crate::support::deadline::until;
use crate::support::redis;
use crate::support::store::{LONG, SHORT, draft, embedded, redis_at};

/// Far beyond the leases of the trials, and soon over where something never ends.
const STALL: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service() {
    suffers(Class::KillReplica, 8, Stage::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_replicas() {
    suffers(Class::KillReplica, 8, Stage::redis(2).await).await;
}

async fn suffers(class: Class, times: usize, stage: Stage) {
    let seed = Seed::draw();
    let trial = Trial {
        name: "seeded",
        seed,
        load: load(),
        plan: Plan::new(&[class], 100..400, seed),
        enough: Enough::Faults(times),
        stall: STALL,
    };
    trial.run(stage).await.expect_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_its_holders() {
    let subject = embedded().await;
    let task = subject.new_task(&draft(json!({}))).await;
    for _ in 0..task.max_attempts {
        subject.lease(SHORT).await;
    }
    until("the end of the last lease", async || {
        (subject.rescue().await.leases_expired > 0).then_some(())
    })
    .await;
    let state = subject.task(&task.id).await.state;
    assert_eq!(state, State::Failed, "it is returned once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_arrives_twice() {
    const EACH_TWICE: Chances = Chances([0, 1_000, 0, 0, 0, 0]);
    let server = SocketAddr::from(([127, 0, 0, 1], redis::shared().port));
    let proxy = RespProxy::start(server, EACH_TWICE, Seed::draw()).await;
    let subject = redis_at(&format!("redis://{}", proxy.address)).await;
    for n in 0..2 {
        subject.new_task(&draft(json!({"n": n}))).await;
    }
    assert_eq!(subject.lease_many(1, LONG).await.len(), 1);
    let other = subject.lease_many(1, LONG).await.len();
    assert_eq!(other, 1, "the second lease took the other task");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_redis() {
    let server = redis::RedisServer::start(&[]);
    let subject = redis_at(&server.url()).await;
    server.pause();
    let admitted = subject.store.admit(draft(json!({})).admission()).await;
    server.resume();
    assert!(
        matches!(admitted, Err(StoreError::Unavailable(_))),
        "promised by nobody: {admitted:?}"
    );
}
