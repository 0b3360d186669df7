//! Thousands of leases end at one moment, and their holders come back late: nothing that they say is
//! recorded.
//!
//! `FAULTS_LEASES` says how many; the short form has few.

use futures_util::StreamExt;
use futures_util::stream;
use justonce::domain::task::{Outcome, State};
use justonce::store::Lease;
use serde_json::json;

use super::setting::setting;
use crate::support::deadline::until;
use crate::support::store::{self, LONG, SHORT, Subject, draft, held, inline, lost, recorded};

const LEASES: usize = 1_000;
/// Steps on their way at a time.
const AT_ONCE: usize = 256;

#[tokio::test(flavor = "multi_thread")]
async fn late_holders_change_nothing_in_the_embedded_store() {
    late_holders_change_nothing(store::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_holders_change_nothing_in_redis() {
    late_holders_change_nothing(store::redis().await).await;
}

async fn late_holders_change_nothing(subject: Subject) {
    let count = setting("FAULTS_LEASES", LEASES);
    for_each(0..count, async |n| {
        subject.new_task(&draft(json!({ "n": n }))).await;
    })
    .await;
    let silent = lease_all(&subject, count, SHORT).await;
    // Nobody looks after leases until now: all of them are over at once.
    let mut expired = 0;
    until("all leases to end", async || {
        expired += subject.rescue().await.leases_expired;
        (expired >= count as u64).then_some(())
    })
    .await;
    assert_eq!(expired, count as u64);
    // While the tasks wait, while others run them, and after their ends.
    let mut refused = all_lost(&subject, &silent).await;
    let current = lease_all(&subject, count, LONG).await;
    refused += all_lost(&subject, &silent).await;
    for_each(&current, async |lease: &Lease| {
        recorded(subject.complete(lease, "\"current\"").await);
    })
    .await;
    refused += all_lost(&subject, &silent).await;
    for_each(&current, async |lease: &Lease| {
        let task = subject.task(&lease.task.id).await;
        assert_eq!((task.state, task.attempt), (State::Succeeded, 2));
        let Some(Outcome::Inline(result)) = task.outcome else {
            panic!("no result: {:?}", task.outcome);
        };
        assert_eq!(result.get(), "\"current\"");
    })
    .await;
    println!("{count} leases ended at once; {refused} late reports refused, 0 recorded");
}

/// Leases as many as there are, for so long.
async fn lease_all(subject: &Subject, count: usize, lease: std::time::Duration) -> Vec<Lease> {
    let mut leases = Vec::new();
    until("everything to be leased", async || {
        leases.extend(subject.lease_many(count - leases.len(), lease).await);
        (leases.len() == count).then_some(())
    })
    .await;
    leases
}

/// Every report of holders whose leases are over. How many were refused.
async fn all_lost(subject: &Subject, silent: &[Lease]) -> usize {
    for_each(silent, async |lease: &Lease| {
        let store = &subject.store;
        lost(
            store
                .complete(held(lease), inline("\"late\""))
                .await
                .unwrap(),
        );
        lost(store.extend(held(lease), None).await.unwrap());
        lost(subject.fail(lease, None).await);
        // To hand back what nobody has taken since says nothing new, and changes nothing.
        let _ = store.release(held(lease)).await.unwrap();
    })
    .await;
    3 * silent.len()
}

async fn for_each<T>(items: impl IntoIterator<Item = T>, step: impl AsyncFn(T)) {
    let step = &step;
    let steps = stream::iter(items).map(|item| async move { step(item).await });
    steps.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}
