//! A cluster loses servers and moves slots, and the store follows by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use justonce::domain::digest::Sha256Digest;
use justonce::domain::task::{Task, TaskId};
use justonce::store::{Admitted, StoreError};
use serde_json::json;

use crate::support::deadline::until;
use crate::support::redis_cluster::RedisCluster;
use crate::support::replicas::{Replicas, task};
use crate::support::store::{Draft, LONG, Subject, draft, recorded, redis_at};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_followed_by_its_replica() {
    let cluster = RedisCluster::start().await;
    let replicas = Replicas::over(&cluster.url()).await;
    let before = draft(json!({"n": 1})).key("before");
    let known = replicas.one.new_task(&before).await;
    let at = cluster.primary_of(&tag(&known));
    cluster.nodes[at].is_copied_to(1, &tag(&known)).await;
    cluster.nodes[at].kill();
    replicas.know(&before, &known.id).await;
    replicas.hear_each_other().await;
    let lease = replicas.one.lease(LONG).await;
    assert_eq!(lease.task.id, known.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_primary_is_given_up_and_may_come_back_as_a_replica() {
    let cluster = RedisCluster::start().await;
    let replicas = Replicas::over(&cluster.url()).await;
    let before = draft(json!({"n": 1})).key("before");
    let known = replicas.one.new_task(&before).await;
    let at = cluster.primary_of(&tag(&known));
    cluster.nodes[at].is_copied_to(1, &tag(&known)).await;
    cluster.nodes[at].pause();
    replicas.know(&before, &known.id).await;
    let between = draft(json!({"n": 2})).key("between");
    let later = task(replicas.one.admit_soon(&between).await);
    cluster.nodes[at].resume();
    until("the old primary as a replica", async || {
        replicas.know(&before, &known.id).await;
        let shown = cluster.nodes[at].command(&["INFO", "replication"]);
        shown.contains("master_link_status:up").then_some(())
    })
    .await;
    replicas.know(&between, &later.id).await;
    replicas.hear_each_other().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_moves_and_no_answer_is_wrong() {
    let cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        // A slow machine is no reason to lose what a replica has not copied yet.
        node.command(&["CONFIG", "SET", "cluster-node-timeout", "60000"]);
    }
    let subject = Arc::new(redis_at(&cluster.url()).await);
    let known = subject.new_task(&numbered(0)).await;
    let slot = cluster.slot_of(&tag(&known));
    let from = cluster.primary_of(&tag(&known));
    let to = (from + 1) % 3;
    let stop = Arc::new(AtomicBool::new(false));
    let submitting = tokio::spawn(submit(subject.clone(), stop.clone()));
    let a_while = async || tokio::time::sleep(Duration::from_millis(300)).await;
    a_while().await;
    cluster.begin_to_move(&slot, from, to);
    a_while().await;
    assert!(cluster.move_keys(&slot, from, to, 3) > 0);
    // Some records are here now, and some there.
    let (repeated, found) = tokio::join!(
        subject.store.admit(numbered(0).admission()),
        subject.store.get(&known.user, &known.id),
    );
    assert!(is_unavailable(&repeated), "{repeated:?}");
    assert!(is_unavailable(&found), "{found:?}");
    while cluster.move_keys(&slot, from, to, 1000) > 0 {}
    a_while().await;
    cluster.has_moved(&slot, from, to);
    assert_eq!(task(subject.admit_soon(&numbered(0)).await).id, known.id);
    a_while().await;
    stop.store(true, Ordering::Relaxed);
    let submitted = submitting.await.unwrap();
    assert!(submitted.iter().any(Option::is_some));
    for (n, before) in (1..).zip(&submitted) {
        let now = task(subject.admit_soon(&numbered(n)).await);
        assert!(before.as_ref().is_none_or(|id| *id == now.id), "{n}");
    }
    let (all, mut run) = (1 + submitted.len(), 0);
    until("all tasks to run", async || {
        for lease in subject.lease_many(100, LONG).await {
            recorded(subject.complete(&lease, "1").await);
            run += 1;
        }
        (run >= all).then_some(())
    })
    .await;
    assert!(subject.lease_many(1, LONG).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_elsewhere_are_served_while_a_part_of_the_cluster_is_gone() {
    let cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        node.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let subject = redis_at(&cluster.url()).await;
    let known = subject.new_task(&numbered(0)).await;
    let gone = (cluster.primary_of(&tag(&known)) + 1) % 3;
    cluster.nodes[gone + 3].kill();
    cluster.nodes[gone].kill();
    until("the cluster to notice", async || {
        let shown = cluster.nodes[(gone + 1) % 3].command(&["CLUSTER", "NODES"]);
        (shown.matches(" master,fail").count() == 1).then_some(())
    })
    .await;
    for n in 1..=20 {
        subject.new_task(&numbered(n)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_silent_as_a_whole_is_served_from_again() {
    let cluster = RedisCluster::start().await;
    let replicas = Replicas::over(&cluster.url()).await;
    let known = replicas.one.new_task(&numbered(0)).await;
    for node in &cluster.nodes {
        node.pause();
    }
    let silent = replicas.one.store.admit(numbered(1).admission()).await;
    assert!(is_unavailable(&silent), "{silent:?}");
    for node in &cluster.nodes {
        node.resume();
    }
    replicas.know(&numbered(0), &known.id).await;
    replicas.hear_each_other().await;
}

/// Submits one after another until told to stop; gives what it was told of each.
async fn submit(subject: Arc<Subject>, stop: Arc<AtomicBool>) -> Vec<Option<TaskId>> {
    let mut submitted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let draft = numbered(submitted.len() + 1);
        submitted.push(match subject.store.admit(draft.admission()).await {
            Ok(Admitted::New(answer)) => Some(answer.task.id.clone()),
            Err(StoreError::Unavailable(_)) => None,
            other => panic!("{other:?}"),
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    submitted
}

fn is_unavailable<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable(_)))
}

fn numbered(n: usize) -> Draft {
    draft(json!({"n": n})).key(&format!("k{n}"))
}

/// What decides over the slot of a task's records.
fn tag(task: &Task) -> String {
    let hash = Sha256Digest::of(task.user.as_str().as_bytes());
    let [high, low, ..] = *hash.as_bytes();
    format!("{{p{:02}}}", u16::from_be_bytes([high, low]) % 16)
}
