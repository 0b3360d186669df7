//! What every store promises: one function a promise, run through by each of them.

mod admission;
mod api_keys;
mod ending;
mod files;
mod leases;
mod lists;
mod retention;

use serde_json::json;

use crate::support::store::{LONG, draft, embedded};

/// Runs the promises of one noun against every store.
macro_rules! promises {
    ($($promise:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(crate::support::store::embedded().await).await;
            })+
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(crate::support::store::memory().await).await;
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
    let waiting = subject.new_task(&draft(json!({"n": 2})).key("waiting")).await;
    let first = subject.lease(LONG).await;
    let subject = subject.reopened().await;
    let after = subject.task(&before.id).await;
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    let running = subject.task(&waiting.id).await;
    assert_eq!(running.attempt, 1);
    // Tokens go on growing: what was leased before can never be mistaken for what is leased after.
    crate::support::store::recorded(subject.store.release(crate::support::store::held(&first)).await.unwrap());
    let second = subject.lease(LONG).await;
    assert!(second.token > first.token, "{:?} after {:?}", second.token, first.token);
}
