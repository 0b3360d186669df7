//! Cancel, redrive, forget: what changes an end, and what does not.

use justonce::domain::task::{Outcome, State, TaskId};
use justonce::store::{Admitted, Cancelled, Forgotten, Found, Missing, RedriveFilter, Redriven};
use serde_json::json;

use super::promises;
use crate::support::store::{
    LONG, SHORT, Subject, draft, draft_of, held, lost, plain_type, recorded, user,
};

promises!(
    long_submissions_and_results_are_kept_whole,
    a_waiting_task_is_cancelled_at_once,
    a_running_task_is_told_and_its_late_result_refused,
    a_cancelled_holder_that_vanishes_stops_blocking,
    a_failed_task_runs_again_with_a_new_budget,
    a_redrive_is_blocked_by_another_task_of_its_content,
    a_succeeded_task_is_not_redriven,
    many_are_redriven_by_filter,
    a_forgotten_task_leaves_a_tombstone_for_its_keys,
    an_unfinished_task_is_not_forgotten,
    foreign_and_unknown_tasks_are_missing_alike,
);

async fn cancel(subject: &Subject, id: &TaskId) -> (State, bool) {
    match subject.store.cancel(&user(), id).await.unwrap() {
        Cancelled::Done { task, stopping } => (task.state, stopping),
        other => panic!("not cancelled: {other:?}"),
    }
}

async fn redrive(subject: &Subject, id: &TaskId) -> Redriven {
    subject.store.redrive(&user(), id).await.unwrap()
}

/// However a store packs what is short.
async fn long_submissions_and_results_are_kept_whole(subject: Subject) {
    for length in [400, 513, 70_000] {
        let long = "x".repeat(length);
        let draft = draft(json!({"text": long})).key("long");
        let draft = draft.user(&format!("user{length}"));
        let id = subject.new_task(&draft).await.id;
        let lease = subject.lease(LONG).await;
        assert_eq!(lease.task.id, id);
        let result = format!("\"{long}\"");
        recorded(subject.complete(&lease, &result).await);
        let Admitted::Duplicate { answer, .. } = subject.admit(&draft).await else {
            panic!("the same key made another task");
        };
        let params: serde_json::Value = serde_json::from_str(answer.task.params.get()).unwrap();
        assert_eq!(params, json!({"text": long}));
        let Some(Outcome::Inline(kept)) = &answer.task.outcome else {
            panic!("no result");
        };
        assert_eq!(kept.get(), result);
    }
}

async fn a_waiting_task_is_cancelled_at_once(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    assert_eq!(cancel(&subject, &task.id).await, (State::Cancelled, false));
    assert!(subject.lease_many(1, LONG).await.is_empty());
    // Cancelling twice is cancelling once.
    assert_eq!(cancel(&subject, &task.id).await, (State::Cancelled, false));
    subject.new_task(&draft(json!({}))).await;
}

async fn a_running_task_is_told_and_its_late_result_refused(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let lease = subject.lease(LONG).await;
    assert_eq!(cancel(&subject, &task.id).await, (State::Cancelled, true));
    let told = recorded(subject.store.extend(held(&lease), None).await.unwrap());
    assert!(told.cancel_requested);
    // Until the attempt has stopped, its content must not run a second time beside it.
    let Admitted::Duplicate { answer, .. } = subject.admit(&draft(json!({}))).await else {
        panic!("the same content would run twice at a time");
    };
    assert_eq!(answer.task.id, task.id);
    // A late result is refused, and says that the attempt is over.
    lost(subject.complete(&lease, "\"late\"").await);
    let ended = subject.task(&task.id).await;
    assert_eq!(
        ended.state,
        State::Cancelled,
        "a late result changed the end"
    );
    assert!(ended.outcome.is_none());
    let next = subject.new_task(&draft(json!({}))).await;
    // So does a failure, which is how a holder confirms that it has stopped.
    let lease = subject.lease(LONG).await;
    assert_eq!(cancel(&subject, &next.id).await, (State::Cancelled, true));
    recorded(subject.fail(&lease, None).await);
    assert_eq!(subject.task(&next.id).await.state, State::Cancelled);
    subject.new_task(&draft(json!({}))).await;
}

async fn a_cancelled_holder_that_vanishes_stops_blocking(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    subject.lease(SHORT).await;
    assert_eq!(cancel(&subject, &task.id).await, (State::Cancelled, true));
    crate::support::deadline::until("the content to be free", async || {
        subject.rescue().await;
        let admitted = subject.admit(&draft(json!({}))).await;
        matches!(admitted, Admitted::New(_)).then_some(())
    })
    .await;
    assert_eq!(subject.task(&task.id).await.state, State::Cancelled);
}

async fn a_failed_task_runs_again_with_a_new_budget(subject: Subject) {
    let failed = subject.failed(&draft(json!({})).key("k")).await;
    assert_eq!((failed.attempt, failed.max_attempts), (1, 4));
    for _ in 0..2 {
        let Redriven::Done(task) = redrive(&subject, &failed.id).await else {
            panic!("not redriven");
        };
        assert_eq!(task.id, failed.id);
        assert_eq!(
            (task.state, task.attempt, task.max_attempts),
            (State::Queued, 1, 5)
        );
    }
    let again = subject.admit(&draft(json!({}))).await;
    assert!(
        matches!(again, Admitted::Duplicate { .. }),
        "a redriven task blocks its content"
    );
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.attempt, 2, "attempts grow on");
    assert_eq!(
        recorded(subject.complete(&lease, "1").await).state,
        State::Succeeded
    );
    let cancelled = subject.new_task(&draft(json!({"c": 1}))).await;
    cancel(&subject, &cancelled.id).await;
    assert!(matches!(
        redrive(&subject, &cancelled.id).await,
        Redriven::Done(_)
    ));
    assert_eq!(subject.lease(LONG).await.task.id, cancelled.id);
}

async fn a_redrive_is_blocked_by_another_task_of_its_content(subject: Subject) {
    let failed = subject.failed(&draft(json!({}))).await;
    let newer = subject.new_task(&draft(json!({}))).await;
    let blocked = redrive(&subject, &failed.id).await;
    assert!(
        matches!(&blocked, Redriven::Blocked(id) if *id == newer.id),
        "{blocked:?}"
    );
    assert_eq!(subject.task(&failed.id).await.state, State::Failed);
}

async fn a_succeeded_task_is_not_redriven(subject: Subject) {
    let done = subject.succeeded(&draft(json!({}))).await;
    let answer = redrive(&subject, &done.id).await;
    assert!(matches!(answer, Redriven::Succeeded(_)), "{answer:?}");
    assert_eq!(subject.task(&done.id).await.state, State::Succeeded);
}

async fn many_are_redriven_by_filter(subject: Subject) {
    let mut other = plain_type();
    other.name = "other".to_owned();
    let cancelled = subject.new_task(&draft_of(other, json!({}))).await;
    cancel(&subject, &cancelled.id).await;
    for n in 0..4 {
        let team = if n < 3 { "red" } else { "blue" };
        subject
            .failed(&draft(json!({"n": n})).tag("team", team))
            .await;
    }
    // The first of the red ones has a successor that blocks it.
    let successor = subject.new_task(&draft(json!({"n": 0}))).await;
    let many = async |value: Option<&str>, limit| {
        let tag = Some(("team".to_owned(), value.map(str::to_owned)));
        let task_type = Some("plain".to_owned());
        let filter = RedriveFilter {
            task_type,
            tag,
            before: None,
            limit,
            after: None,
        };
        subject
            .store
            .redrive_many(&user(), filter)
            .await
            .unwrap()
            .redriven
    };
    assert_eq!(many(Some("red"), 1).await, 1);
    assert_eq!(many(Some("red"), 100).await, 1);
    assert_eq!(
        many(Some("red"), 100).await,
        0,
        "the blocked one is passed over"
    );
    assert_eq!(many(None, 100).await, 1);
    let leased = subject.lease_many(9, LONG).await;
    assert_eq!(leased.len(), 4);
    assert!(leased.iter().any(|lease| lease.task.id == successor.id));
}

async fn a_forgotten_task_leaves_a_tombstone_for_its_keys(subject: Subject) {
    let task = subject.succeeded(&draft(json!({})).key("k")).await;
    // Each key more than once, so that it may be answered from memory.
    for key in ["k", "bound-later", "bound-later"] {
        subject.admit(&draft(json!({})).key(key)).await;
    }
    assert_eq!(
        subject.store.forget(&user(), &task.id).await.unwrap(),
        Forgotten::Done { disowned: None }
    );
    let found = subject.store.get(&user(), &task.id).await.unwrap();
    assert!(
        matches!(found, Found::Missing(Missing::Forgotten)),
        "{found:?}"
    );
    for key in ["k", "bound-later"] {
        let answer = subject.admit(&draft(json!({})).key(key)).await;
        assert!(
            matches!(answer, Admitted::KeyForgotten),
            "{key}: {answer:?}"
        );
    }
    let anew = subject.new_task(&draft(json!({})).key("new")).await;
    assert_ne!(anew.id, task.id);
    let again = subject.store.forget(&user(), &task.id).await.unwrap();
    assert!(
        matches!(
            again,
            Forgotten::Unknown(Missing::Forgotten) | Forgotten::Done { disowned: None }
        ),
        "{again:?}"
    );
}

async fn an_unfinished_task_is_not_forgotten(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let forget = async || subject.store.forget(&user(), &task.id).await.unwrap();
    assert_eq!(forget().await, Forgotten::Unfinished);
    let lease = subject.lease(LONG).await;
    assert_eq!(forget().await, Forgotten::Unfinished);
    recorded(subject.complete(&lease, "1").await);
    assert_eq!(forget().await, Forgotten::Done { disowned: None });
}

async fn foreign_and_unknown_tasks_are_missing_alike(subject: Subject) {
    let foreign = subject.new_task(&draft(json!({})).user("other")).await.id;
    for id in [foreign.clone(), TaskId::random(&user())] {
        let (store, me) = (&subject.store, user());
        assert!(matches!(
            store.get(&me, &id).await.unwrap(),
            Found::Missing(Missing::Unknown)
        ));
        assert!(matches!(
            store.cancel(&me, &id).await.unwrap(),
            Cancelled::Unknown(Missing::Unknown)
        ));
        assert!(matches!(
            store.redrive(&me, &id).await.unwrap(),
            Redriven::Unknown(Missing::Unknown)
        ));
        assert_eq!(
            store.forget(&me, &id).await.unwrap(),
            Forgotten::Unknown(Missing::Unknown)
        );
        assert!(matches!(
            store.ledger(&me, &id).await.unwrap(),
            Found::Missing(Missing::Unknown)
        ));
    }
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, foreign, "leases reach over users");
    let mut mine = held(&lease);
    mine.user = user();
    lost(subject.store.extend(mine, None).await.unwrap());
}
