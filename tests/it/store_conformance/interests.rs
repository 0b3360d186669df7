//! Who still wants a task: each of its keys, and all submissions without one together.

use std::sync::Arc;

use justonce::domain::idempotency_key::IdempotencyKey;
use justonce::domain::task::{State, TaskId};
use justonce::store::{Admitted, Cancelled, MatchedBy, Missing, Redriven, Withdrawn};
use serde_json::json;

use super::promises;
use crate::support::deadline::within;
use crate::support::store::{LONG, Subject, draft, lost, recorded, user};

promises!(
    the_work_stops_with_the_last_key_that_goes,
    a_withdrawal_is_counted_once_however_often_it_is_repeated,
    submissions_without_a_key_count_as_one,
    a_running_attempt_is_told_when_nobody_wants_it,
    a_key_of_another_task_has_no_interest_in_this_one,
    a_key_that_went_stays_gone,
    a_redriven_task_is_wanted_again,
    of_keys_that_go_at_once_the_last_one_stops_the_work,
);

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::parse(text.as_bytes()).unwrap()
}

async fn withdraw(subject: &Subject, id: &TaskId, text: &str) -> Withdrawn {
    let store = &subject.store;
    store.withdraw(&user(), id, &key(text)).await.unwrap()
}

#[track_caller]
fn expect_wanted(withdrawn: Withdrawn) {
    match withdrawn {
        Withdrawn::Wanted(task) => assert!(!task.state.is_ended()),
        other => panic!("it is still wanted: {other:?}"),
    }
}

#[track_caller]
fn expect_cancelled(withdrawn: Withdrawn) -> bool {
    match withdrawn {
        Withdrawn::Cancelled(Cancelled::Done { task, stopping }) => {
            assert_eq!(task.state, State::Cancelled);
            stopping
        }
        other => panic!("nobody wants it: {other:?}"),
    }
}

/// One task that these keys name.
async fn task_of(subject: &Subject, keys: &[&str]) -> TaskId {
    let one = |text: &str| draft(json!({"of": keys})).key(text);
    let task = subject.new_task(&one(keys[0])).await;
    for key in &keys[1..] {
        let Admitted::Duplicate { answer, .. } = subject.admit(&one(key)).await else {
            panic!("{key} is no duplicate");
        };
        assert_eq!(answer.task.id, task.id);
    }
    task.id
}

async fn the_work_stops_with_the_last_key_that_goes(subject: Subject) {
    let id = task_of(&subject, &["a", "b", "c"]).await;
    expect_wanted(withdraw(&subject, &id, "a").await);
    expect_wanted(withdraw(&subject, &id, "c").await);
    assert_eq!(subject.task(&id).await.state, State::Queued);
    assert!(!expect_cancelled(withdraw(&subject, &id, "b").await));
    assert!(subject.lease_many(9, LONG).await.is_empty());
    // Once more, by whoever it was.
    for again in ["a", "b", "c"] {
        expect_cancelled(withdraw(&subject, &id, again).await);
    }
    // One that nobody else ever wanted.
    let alone = task_of(&subject, &["alone"]).await;
    expect_cancelled(withdraw(&subject, &alone, "alone").await);
    // Without a key it is stopped for all.
    let all = task_of(&subject, &["d", "e"]).await;
    let cancelled = subject.store.cancel(&user(), &all).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done { .. }));
}

async fn a_withdrawal_is_counted_once_however_often_it_is_repeated(subject: Subject) {
    let id = task_of(&subject, &["a", "b"]).await;
    for _ in 0..3 {
        expect_wanted(withdraw(&subject, &id, "a").await);
    }
    recorded(subject.complete(&subject.lease(LONG).await, "1").await);
    assert!(matches!(
        withdraw(&subject, &id, "b").await,
        Withdrawn::Cancelled(Cancelled::Ended(_))
    ));
}

async fn submissions_without_a_key_count_as_one(subject: Subject) {
    let keyless = draft(json!({"keyless": "first"}));
    let id = subject.new_task(&keyless).await.id;
    subject.admit(&keyless.clone().key("a")).await;
    expect_wanted(withdraw(&subject, &id, "a").await);
    // One that joins later counts as well, and until the end.
    let id = task_of(&subject, &["b", "c"]).await;
    for _ in 0..2 {
        subject.admit(&draft(json!({"of": ["b", "c"]}))).await;
    }
    expect_wanted(withdraw(&subject, &id, "b").await);
    expect_wanted(withdraw(&subject, &id, "c").await);
    assert_eq!(subject.task(&id).await.state, State::Queued);
    let cancelled = subject.store.cancel(&user(), &id).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done { .. }));
}

async fn a_running_attempt_is_told_when_nobody_wants_it(subject: Subject) {
    let id = task_of(&subject, &["a", "b"]).await;
    let lease = subject.lease(LONG).await;
    expect_wanted(withdraw(&subject, &id, "b").await);
    assert_eq!(subject.task(&id).await.state, State::Running);
    let is_stopping = expect_cancelled(withdraw(&subject, &id, "a").await);
    assert!(is_stopping);
    lost(subject.complete(&lease, "1").await);
    assert!(!expect_cancelled(withdraw(&subject, &id, "a").await));
}

async fn a_key_of_another_task_has_no_interest_in_this_one(subject: Subject) {
    let id = task_of(&subject, &["a"]).await;
    let other = task_of(&subject, &["b"]).await;
    for text in ["b", "never-used"] {
        let withdrawn = withdraw(&subject, &id, text).await;
        assert!(matches!(withdrawn, Withdrawn::KeyUnknown), "{withdrawn:?}");
    }
    for id in [&id, &other] {
        assert_eq!(subject.task(id).await.state, State::Queued);
    }
    let nobodys = TaskId::random(&user());
    assert!(matches!(
        withdraw(&subject, &nobodys, "a").await,
        Withdrawn::Cancelled(Cancelled::Unknown(Missing::Unknown))
    ));
}

async fn a_key_that_went_stays_gone(subject: Subject) {
    let id = task_of(&subject, &["a", "b"]).await;
    expect_wanted(withdraw(&subject, &id, "a").await);
    // Its submission sent again gets the task, and wants it no more.
    let replay = subject
        .admit(&draft(json!({"of": ["a", "b"]})).key("a"))
        .await;
    let Admitted::Duplicate { answer, matched_by } = replay else {
        panic!("{replay:?}");
    };
    assert_eq!(
        (answer.task.id, matched_by),
        (id.clone(), MatchedBy::IdempotencyKey)
    );
    expect_cancelled(withdraw(&subject, &id, "b").await);
}

async fn a_redriven_task_is_wanted_again(subject: Subject) {
    let id = task_of(&subject, &["a", "b"]).await;
    expect_wanted(withdraw(&subject, &id, "a").await);
    expect_cancelled(withdraw(&subject, &id, "b").await);
    let redriven = subject.store.redrive(&user(), &id).await.unwrap();
    assert!(matches!(redriven, Redriven::Done(_)), "{redriven:?}");
    // Whoever asked for that has no key.
    for text in ["a", "b"] {
        expect_wanted(withdraw(&subject, &id, text).await);
    }
    recorded(subject.complete(&subject.lease(LONG).await, "1").await);
}

async fn of_keys_that_go_at_once_the_last_one_stops_the_work(subject: Subject) {
    let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = task_of(&subject, &names).await;
    let barrier = Arc::new(tokio::sync::Barrier::new(names.len()));
    let all = names.iter().map(|name| {
        let (store, barrier) = (subject.store.clone(), barrier.clone());
        let (id, key) = (id.clone(), key(name));
        tokio::spawn(async move {
            barrier.wait().await;
            store.withdraw(&user(), &id, &key).await.unwrap()
        })
    });
    let all = within("all withdrawals", futures_util::future::join_all(all)).await;
    let cancelled = all
        .into_iter()
        .filter(|one| matches!(one, Ok(Withdrawn::Cancelled(_))));
    assert_eq!(cancelled.count(), 1);
    assert_eq!(subject.task(&id).await.state, State::Cancelled);
}
