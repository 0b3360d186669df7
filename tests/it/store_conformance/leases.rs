//! The right to run: fenced by a token that only grows.

use std::time::Duration;

use justonce::domain::submission::Start;
use justonce::domain::task::{Outcome, Priority, Progress, State};
use justonce::store::Fenced;
use serde_json::json;

use super::promises;
use crate::support::deadline::until;
use crate::support::store::{
    LONG, SHORT, Subject, draft, draft_of, held, inline, lost, plain_type, recorded,
};

promises!(
    the_most_important_and_then_the_oldest_goes_first,
    a_task_is_leased_to_one_holder_only,
    only_the_types_that_were_asked_for_are_leased,
    tokens_only_grow,
    a_stale_token_changes_nothing,
    a_completion_repeated_with_its_token_is_recorded,
    an_extension_renews_the_lease_and_records_progress,
    a_released_attempt_does_not_count,
    a_failed_attempt_waits_and_the_last_one_ends_the_task,
    a_permanent_failure_ends_the_task_at_once,
    a_silent_holder_loses_its_lease,
    a_task_whose_holders_all_vanish_fails,
    a_scheduled_task_waits_for_its_time,
);

async fn the_most_important_and_then_the_oldest_goes_first(subject: Subject) {
    let mut expected = Vec::new();
    for (n, priority) in [5, 0, 9, 5, 0].into_iter().enumerate() {
        let important = Priority::new(priority);
        let task = draft(json!({"n": n})).with(|s| s.priority = important);
        expected.push((priority, n, subject.new_task(&task).await.id));
    }
    expected.sort();
    let mut leased = subject.lease_many(2, LONG).await;
    assert_eq!(leased.len(), 2);
    leased.extend(subject.lease_many(9, LONG).await);
    let leased: Vec<_> = leased.into_iter().map(|lease| lease.task.id).collect();
    let expected: Vec<_> = expected.into_iter().map(|(_, _, id)| id).collect();
    assert_eq!(leased, expected);
}

async fn a_task_is_leased_to_one_holder_only(subject: Subject) {
    const TASKS: usize = 40;
    for n in 0..TASKS {
        subject.new_task(&draft(json!({"n": n}))).await;
    }
    let workers = (0..8).map(|_| async {
        let mut mine = Vec::new();
        loop {
            let leases = subject.lease_many(3, LONG).await;
            if leases.is_empty() {
                return mine;
            }
            mine.extend(leases.into_iter().map(|lease| lease.task.id));
        }
    });
    let mut leased = futures_util::future::join_all(workers).await.concat();
    leased.sort();
    leased.dedup();
    assert_eq!(leased.len(), TASKS);
}

async fn only_the_types_that_were_asked_for_are_leased(subject: Subject) {
    let mut other = plain_type();
    other.name = "other".to_owned();
    subject.new_task(&draft_of(other, json!({}))).await;
    assert!(subject.lease_many(9, LONG).await.is_empty());
    let plain = subject.new_task(&draft(json!({})).key("the-key")).await;
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, plain.id);
    assert_eq!(lease.idempotency_key.as_deref(), Some("the-key"));
    assert_eq!(lease.task.state, State::Running);
    assert_eq!(lease.task.attempt, 1);
    assert!(lease.task.started_at.is_some());
}

async fn tokens_only_grow(subject: Subject) {
    subject.new_task(&draft(json!({}))).await;
    let mut newest = None;
    for attempt in 1..=4 {
        let lease = subject.lease(LONG).await;
        assert_eq!(lease.task.attempt, attempt);
        assert!(
            newest < Some(lease.token),
            "{:?} after {newest:?}",
            lease.token
        );
        newest = Some(lease.token);
        recorded(subject.fail(&lease, Some(Duration::ZERO)).await);
    }
}

async fn a_stale_token_changes_nothing(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let stale = subject.lease(LONG).await;
    recorded(subject.fail(&stale, Some(Duration::ZERO)).await);
    let newest = subject.lease(LONG).await;
    let before = format!("{:?}", subject.task(&task.id).await);
    let progress = Progress {
        done: 9.0,
        ..Progress::default()
    };
    lost(
        subject
            .store
            .extend(held(&stale), Some(progress))
            .await
            .unwrap(),
    );
    lost(subject.complete(&stale, "\"stale\"").await);
    lost(subject.store.release(held(&stale)).await.unwrap());
    assert_eq!(format!("{:?}", subject.task(&task.id).await), before);
    let mut forged = held(&newest);
    forged.token.0 += 1;
    lost(
        subject
            .store
            .complete(forged, inline("\"forged\""))
            .await
            .unwrap(),
    );
    assert_eq!(format!("{:?}", subject.task(&task.id).await), before);
    recorded(subject.complete(&newest, "\"true\"").await);
    lost(subject.complete(&stale, "\"late\"").await);
    lost(subject.fail(&stale, None).await);
    let ended = subject.task(&task.id).await;
    assert!(matches!(ended.outcome, Some(Outcome::Inline(json)) if json.get() == "\"true\""));
}

async fn a_completion_repeated_with_its_token_is_recorded(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let lease = subject.lease(LONG).await;
    let first = recorded(subject.complete(&lease, r#"{"kept":  "as it is"}"#).await);
    let repeat = recorded(subject.complete(&lease, "\"other\"").await);
    assert_eq!(repeat.state, State::Succeeded);
    assert_eq!(repeat.finished_at, first.finished_at);
    let ended = subject.task(&task.id).await;
    let Some(Outcome::Inline(json)) = ended.outcome else {
        panic!("no result: {ended:?}");
    };
    assert_eq!(
        json.get(),
        r#"{"kept":  "as it is"}"#,
        "result bytes changed"
    );
    lost(subject.fail(&lease, None).await);
    lost(subject.store.release(held(&lease)).await.unwrap());
    assert_eq!(subject.task(&task.id).await.state, State::Succeeded);
}

async fn an_extension_renews_the_lease_and_records_progress(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let lease = subject.lease(Duration::from_secs(30)).await;
    let progress = Progress {
        done: 3.0,
        total: Some(10.0),
        message: Some("rows".to_owned()),
    };
    let extension = recorded(
        subject
            .store
            .extend(held(&lease), Some(progress.clone()))
            .await
            .unwrap(),
    );
    assert!(extension.expires_at > lease.expires_at);
    assert!(!extension.cancel_requested);
    assert_eq!(
        subject.task(&task.id).await.progress,
        Some(progress.clone())
    );
    recorded(subject.store.extend(held(&lease), None).await.unwrap());
    assert_eq!(
        subject.task(&task.id).await.progress,
        Some(progress),
        "progress was lost"
    );
}

async fn a_released_attempt_does_not_count(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let first = subject.lease(LONG).await;
    recorded(subject.store.release(held(&first)).await.unwrap());
    let waiting = subject.task(&task.id).await;
    assert_eq!((waiting.state, waiting.attempt), (State::Queued, 0));
    let second = subject.lease(LONG).await;
    assert_eq!(second.task.attempt, 1);
    assert!(second.token > first.token);
    lost(subject.complete(&first, "1").await);
    recorded(subject.complete(&second, "2").await);
}

async fn a_failed_attempt_waits_and_the_last_one_ends_the_task(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let lease = subject.lease(LONG).await;
    let waiting = recorded(subject.fail(&lease, Some(LONG)).await);
    assert_eq!(waiting.state, State::Retrying);
    let error = waiting.error.unwrap();
    assert_eq!((error.code.as_str(), error.attempt), ("broken", 1));
    let due = waiting.next_attempt_at.unwrap();
    assert!(due > waiting.started_at.unwrap().plus(LONG / 2), "{due}");
    let rescued = subject.rescue().await;
    assert_eq!(rescued.queued, 0);
    assert!(rescued.next_due_at.is_some_and(|next| next <= due));
    assert!(
        subject.lease_many(1, LONG).await.is_empty(),
        "it did not wait"
    );

    let short = subject.new_task(&draft(json!({"short": 1}))).await;
    for attempt in 1..=4 {
        let lease = subject.lease(LONG).await;
        assert_eq!((&lease.task.id, lease.task.attempt), (&short.id, attempt));
        let after = recorded(subject.fail(&lease, Some(Duration::ZERO)).await);
        assert_eq!(
            after.state == State::Failed,
            attempt == 4,
            "{attempt}: {:?}",
            after.state
        );
    }
    let ended = subject.task(&short.id).await;
    assert_eq!((ended.attempt, ended.error.unwrap().attempt), (4, 4));
    assert!(ended.finished_at.is_some() && ended.next_attempt_at.is_none());
    assert_eq!(subject.task(&task.id).await.state, State::Retrying);
}

async fn a_permanent_failure_ends_the_task_at_once(subject: Subject) {
    let failed = subject.failed(&draft(json!({}))).await;
    assert_eq!((failed.state, failed.attempt), (State::Failed, 1));
    assert!(failed.error.unwrap().permanent);
    assert!(subject.lease_many(1, LONG).await.is_empty());
}

async fn a_silent_holder_loses_its_lease(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let silent = subject.lease(SHORT).await;
    until("the lease to expire", async || {
        (subject.rescue().await.leases_expired == 1).then_some(())
    })
    .await;
    assert_eq!(
        subject.task(&task.id).await.state,
        State::Queued,
        "a rescue waits for no backoff"
    );
    lost(subject.complete(&silent, "\"zombie\"").await);
    let next = subject.lease(LONG).await;
    assert_eq!(next.task.attempt, 2, "the attempt counts when it is leased");
    lost(subject.store.extend(held(&silent), None).await.unwrap());
    recorded(subject.complete(&next, "\"alive\"").await);
    lost(subject.complete(&silent, "\"zombie\"").await);
}

async fn a_task_whose_holders_all_vanish_fails(subject: Subject) {
    let task = subject.new_task(&draft(json!({})).key("k")).await;
    for _ in 0..4 {
        subject.lease(SHORT).await;
    }
    let ended = until("the dead letter", async || {
        subject.rescue().await;
        let task = subject.task(&task.id).await;
        task.state.is_ended().then_some(task)
    })
    .await;
    assert_eq!((ended.state, ended.attempt), (State::Failed, 4));
    assert!(ended.error.is_some_and(|error| !error.message.is_empty()));
    // It blocks nobody.
    subject.new_task(&draft(json!({}))).await;
}

async fn a_scheduled_task_waits_for_its_time(subject: Subject) {
    let soon = draft(json!({"n": 1})).with(|s| s.start = Start::After(SHORT));
    let soon = subject.new_task(&soon).await;
    assert_eq!(soon.state, State::Scheduled);
    let later = draft(json!({"n": 2})).with(|s| s.start = Start::After(LONG));
    let later = subject.new_task(&later).await;
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, soon.id);
    assert!(
        lease.task.started_at >= soon.scheduled_at,
        "it began before its time"
    );
    assert!(matches!(
        subject.complete(&lease, "1").await,
        Fenced::Recorded(_)
    ));
    assert!(subject.lease_many(9, LONG).await.is_empty());
    assert_eq!(subject.task(&later.id).await.state, State::Scheduled);
}
