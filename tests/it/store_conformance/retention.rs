//! What time takes away, and in which order.

use std::time::Duration;

use justonce::domain::task::{Outcome, TaskId};
use justonce::domain::task_type::TaskType;
use justonce::store::{Admitted, Found, MatchedBy, Missing};
use serde_json::json;

use super::promises;
use crate::support::deadline::until;
use crate::support::store::{Draft, LONG, Subject, draft_of, plain_type, user};

promises!(
    after_its_window_content_is_new_and_its_key_still_answers,
    a_key_is_free_when_its_retention_is_over,
    an_expired_result_is_told_from_a_missing_task,
    a_task_becomes_a_tombstone_while_its_key_is_kept,
    nothing_that_is_unfinished_expires,
);

const SECOND: Duration = Duration::from_secs(1);

fn short_lived(change: impl FnOnce(&mut TaskType)) -> Draft {
    let mut short = plain_type();
    short.dedup.window = Duration::ZERO;
    change(&mut short);
    draft_of(short, json!({"n": 1}))
}

async fn after_its_window_content_is_new_and_its_key_still_answers(subject: Subject) {
    let one = short_lived(|t| t.dedup.window = SECOND);
    let task = subject.succeeded(&one.clone().key("k")).await;
    let expires = task.dedup_expires_at.unwrap();
    assert_eq!(expires.since(task.finished_at.unwrap()), SECOND);
    assert!(matches!(
        subject.admit(&one).await,
        Admitted::Duplicate { .. }
    ));
    let anew = until("the end of the window", async || {
        subject.rescue().await;
        match subject.admit(&one).await {
            Admitted::New(answer) => Some(answer.task.id),
            _ => None,
        }
    })
    .await;
    assert_ne!(anew, task.id);
    let Admitted::Duplicate { answer, matched_by } = subject.admit(&one.key("k")).await else {
        panic!("the key was lost with the window");
    };
    assert_eq!(
        (answer.task.id.clone(), matched_by),
        (task.id, MatchedBy::IdempotencyKey)
    );
    assert!(answer.key_expires_at.is_some());
}

async fn a_key_is_free_when_its_retention_is_over(subject: Subject) {
    let one = short_lived(|t| t.retention.key = SECOND).key("k");
    let task = subject.succeeded(&one).await;
    let anew = until("the end of the key", async || {
        subject.rescue().await;
        match subject.admit(&one).await {
            Admitted::New(answer) => Some(answer.task.id),
            _ => None,
        }
    })
    .await;
    assert_ne!(anew, task.id);
}

async fn an_expired_result_is_told_from_a_missing_task(subject: Subject) {
    let one = short_lived(|t| {
        t.retention.key = SECOND;
        t.retention.result = SECOND;
    });
    let task = subject.succeeded(&one).await;
    let outcome = until("the result to expire", async || {
        subject.rescue().await;
        let task = subject.task(&task.id).await;
        matches!(task.outcome, Some(Outcome::Expired)).then_some(task.state)
    })
    .await;
    assert_eq!(outcome, task.state, "the end changed");
}

async fn a_task_becomes_a_tombstone_while_its_key_is_kept(subject: Subject) {
    let one = short_lived(|t| {
        t.retention.key = SECOND;
        t.retention.result = SECOND;
        t.retention.task = SECOND;
    });
    let task = subject.succeeded(&one).await;
    let missing = async |id: &TaskId| match subject.store.get(&user(), id).await.unwrap() {
        Found::Missing(why) => Some(why),
        Found::Here(_) => None,
    };
    let why = until("the task to go", async || {
        subject.rescue().await;
        missing(&task.id).await
    })
    .await;
    assert_eq!(
        why,
        Missing::Forgotten,
        "a task that was there is gone, not unknown"
    );
}

async fn nothing_that_is_unfinished_expires(subject: Subject) {
    let one = short_lived(|t| {
        t.retention.key = Duration::ZERO;
        t.retention.result = Duration::ZERO;
        t.retention.task = Duration::ZERO;
        t.retention.failed_task = Duration::ZERO;
    });
    let one = one.key("k");
    let task = subject.new_task(&one).await;
    subject.rescue().await;
    let lease = subject.lease(LONG).await;
    subject.rescue().await;
    assert_eq!(lease.task.id, task.id);
    let Admitted::Duplicate { answer, matched_by } = subject.admit(&one).await else {
        panic!("the unfinished task does not answer");
    };
    assert_eq!(answer.task.id, task.id);
    let by_key = (MatchedBy::IdempotencyKey, None);
    let seen = (matched_by, answer.key_expires_at);
    assert_eq!(seen, by_key, "the key of an unfinished task expired");
}
