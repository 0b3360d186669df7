//! What every store promises: one function a promise, run through by each of them. After each the records agree
//! with one another.

mod admission;
mod api_keys;
mod batches;
mod callbacks;
mod chores;
mod conflicts;
mod ending;
mod events;
mod files;
mod interests;
mod leases;
mod lists;
mod quotas;
mod retention;
mod schedules;
mod turns;
mod versions;
mod webhook_secrets;

use justonce::domain::task::State;
use justonce::store::Admitted;
use serde_json::json;

use crate::support::store::{
    LONG, Subject, draft, embedded, lost, memory_with, outside, own_worker, recorded, redis_with,
};

/// Runs the promises of one noun against every store.
macro_rules! promises {
    ($($promise:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let subject = crate::support::store::embedded().await;
                let home = subject.home.clone();
                super::$promise(subject).await;
                home.expect_sound().await;
            })+
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(crate::support::store::memory().await).await;
            })+
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let subject = crate::support::store::redis().await;
                let home = subject.home.clone();
                super::$promise(subject).await;
                home.expect_sound().await;
            })+
        }
    };
}
pub(crate) use promises;

/// Only of stores in a file.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let subject = embedded().await;
    let done = draft(json!({"n": 1})).key("done");
    let before = subject.succeeded(&done).await;
    let waiting = subject
        .new_task(&draft(json!({"n": 2})).key("waiting"))
        .await;
    let first = subject.lease(LONG).await;
    let subject = subject.reopened().await;
    let after = subject.task(&before.id).await;
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    // Whoever held a lease is gone with the process: the task is taken up again, under a newer token.
    let second = subject.lease(LONG).await;
    assert_eq!(second.task.id, waiting.id);
    assert!(
        second.token > first.token,
        "{:?} after {:?}",
        second.token,
        first.token
    );
    lost(subject.complete(&first, "1").await);
    recorded(subject.complete(&second, "2").await);
}

/// Only of stores in a file.
#[tokio::test]
async fn leases_of_workers_outside_and_pauses_outlive_the_process() {
    let subject = embedded().await;
    let task = subject.new_task(&draft(json!({"n": 1}))).await;
    let inside = subject.new_task(&draft(json!({"n": 2}))).await;
    let request = outside("far", Some("nonce"), 1);
    let mut leases = subject.store.lease(request.clone()).await.unwrap();
    let lease = leases.pop().unwrap();
    assert_eq!(lease.task.id, task.id);
    assert_eq!(subject.lease(LONG).await.task.id, inside.id);
    subject.store.pause("plain").await.unwrap();
    let subject = subject.reopened().await;
    subject.rescue().await;
    assert_eq!(subject.task(&inside.id).await.state, State::Queued);
    assert_eq!(subject.task(&task.id).await.state, State::Running);
    assert_eq!(subject.store.workers(own_worker()).await.unwrap().len(), 2);
    let again = subject.store.lease(request).await.unwrap();
    assert_eq!((again.len(), again[0].token), (1, lease.token));
    assert!(subject.lease_many(9, LONG).await.is_empty(), "not paused");
    recorded(subject.complete(&lease, "1").await);
}

#[tokio::test]
async fn a_full_queue_takes_no_more_and_still_answers_duplicates() {
    takes_no_more_and_still_answers_duplicates(memory_with(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_in_redis_takes_no_more_and_still_answers_duplicates() {
    takes_no_more_and_still_answers_duplicates(redis_with(3).await).await;
}

/// Of a store with room for three.
async fn takes_no_more_and_still_answers_duplicates(subject: Subject) {
    for n in 0..3 {
        subject.new_task(&draft(json!({"n": n}))).await;
    }
    let over = draft(json!({"n": 3})).key("k");
    let refused = subject.admit(&over).await;
    assert!(
        matches!(refused, Admitted::QueueFull),
        "a full queue took more: {refused:?}"
    );
    assert!(matches!(
        subject.admit(&draft(json!({"n": 0}))).await,
        Admitted::Duplicate { .. }
    ));
    let lease = subject.lease(LONG).await;
    recorded(subject.complete(&lease, "1").await);
    // Nothing of the refused one was recorded: it is new, and so is its key.
    subject.new_task(&over).await;
}
