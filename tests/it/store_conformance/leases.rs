//! The right to run: fenced by a token that only grows.

use std::time::Duration;

use justonce::domain::principal::UserId;
use justonce::domain::submission::Start;
use justonce::domain::task::{Outcome, Priority, Progress, State, TaskId};
use justonce::domain::task_type::TaskType;
use justonce::domain::worker::Place;
use justonce::store::{Fenced, Held, Lease};
use serde_json::json;

use super::promises;
use crate::support::deadline::until;
use crate::support::store::{
    LONG, SHORT, Subject, draft, draft_of, held, inline, lost, outside, own_worker, plain_type,
    recorded,
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
    a_call_repeated_under_its_nonce_gives_the_same_leases_and_no_others,
    only_the_newest_holder_is_shown_its_task,
    what_was_never_leased_is_lost_and_not_counted,
    workers_outside_are_told_by_the_leases_that_they_hold,
    a_lease_that_was_handed_over_belongs_to_a_worker_outside,
    tasks_of_a_paused_type_wait,
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
    let ended = subject.task(&task.id).await;
    let Some(Outcome::Inline(json)) = ended.outcome else {
        panic!("no result: {ended:?}");
    };
    assert_eq!(
        json.get(),
        r#"{"kept":  "as it is"}"#,
        "result bytes changed"
    );
    assert_eq!(repeat.finished_at, first.finished_at);
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

async fn a_call_repeated_under_its_nonce_gives_the_same_leases_and_no_others(subject: Subject) {
    for user in ["anna", "bernd", "carla", "dora"] {
        subject.new_task(&draft(json!({})).user(user)).await;
        subject.new_task(&draft(json!({"n": 2})).user(user)).await;
    }
    let ask = async |nonce: &str, max| {
        let request = outside("far", Some(nonce), max);
        let mut leases = subject.store.lease(request).await.unwrap();
        leases.sort_by(|a, b| a.task.id.cmp(&b.task.id));
        leases
    };
    let first = ask("one", 5).await;
    assert_eq!(first.len(), 5);
    let same = |leases: &[Lease]| -> Vec<_> {
        let lease = |lease: &Lease| (lease.task.id.clone(), lease.token, lease.expires_at);
        leases.iter().map(lease).collect()
    };
    assert_eq!(same(&ask("one", 5).await), same(&first));
    recorded(subject.complete(&first[0], "1").await);
    recorded(subject.store.release(held(&first[1])).await.unwrap());
    assert_eq!(same(&ask("one", 9).await), same(&first[2..]));
    for lease in &first[2..] {
        recorded(subject.complete(lease, "1").await);
    }
    assert!(ask("one", 9).await.is_empty(), "a nonce was used again");
    assert_eq!(ask("two", 9).await.len(), 4);
    // What took nothing may be asked again.
    assert!(ask("three", 9).await.is_empty());
    subject.new_task(&draft(json!({"n": 3}))).await;
    assert_eq!(ask("three", 9).await.len(), 1);
}

async fn only_the_newest_holder_is_shown_its_task(subject: Subject) {
    let task = subject.new_task(&draft(json!({"n": 1}))).await;
    let first = subject.lease(LONG).await;
    let shown = recorded(subject.store.held(&held(&first)).await.unwrap());
    assert_eq!((shown.id, shown.attempt), (task.id.clone(), 1));
    recorded(subject.store.release(held(&first)).await.unwrap());
    lost(subject.store.held(&held(&first)).await.unwrap());
    let second = subject.lease(LONG).await;
    lost(subject.store.held(&held(&first)).await.unwrap());
    recorded(subject.store.held(&held(&second)).await.unwrap());
    let mut foreign = held(&second);
    foreign.user = UserId::parse("mallory").unwrap();
    lost(subject.store.held(&foreign).await.unwrap());
    recorded(subject.complete(&second, "1").await);
    lost(subject.store.held(&held(&second)).await.unwrap());
}

async fn what_was_never_leased_is_lost_and_not_counted(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let lease = subject.lease(LONG).await;
    let mut unknown = held(&lease);
    unknown.task = TaskId::random(&unknown.user);
    let mut foreign = held(&lease);
    foreign.user = UserId::parse("mallory").unwrap();
    for forged in [unknown, foreign] {
        lost(subject.store.extend(forged.clone(), None).await.unwrap());
        lost(
            subject
                .store
                .complete(forged.clone(), inline("1"))
                .await
                .unwrap(),
        );
        lost(subject.store.release(forged).await.unwrap());
    }
    let stats = subject.store.stats(None).await.unwrap();
    assert_eq!(stats.windows.all.writes_fenced, 0);
    let mut stale = held(&lease);
    stale.token.0 -= 1;
    lost(subject.store.complete(stale, inline("1")).await.unwrap());
    let stats = subject.store.stats(None).await.unwrap();
    assert_eq!(stats.windows.all.writes_fenced, 1);
    assert_eq!(subject.task(&task.id).await.state, State::Running);
}

async fn a_lease_that_was_handed_over_belongs_to_a_worker_outside(subject: Subject) {
    let outside = async || {
        let mut all = subject.store.workers(own_worker()).await.unwrap();
        all.retain(|worker| worker.place == Place::Outside);
        all
    };
    subject.new_task(&draft(json!({"n": 1}))).await;
    let lease = subject.lease(SHORT).await;
    let long = Held {
        lease: LONG,
        ..held(&lease)
    };
    // Twice, as when the first answer was lost.
    for _ in 0..2 {
        let handed = subject.store.hand_over(long.clone(), "far away").await;
        let extension = recorded(handed.unwrap());
        assert!(extension.expires_at > lease.expires_at);
    }
    let told = outside().await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].name.as_str(), told[0].running), ("far away", 1));
    assert_eq!(told[0].tasks, std::slice::from_ref(&lease.task.id));
    tokio::time::sleep(2 * SHORT).await;
    subject.rescue().await;
    assert_eq!(subject.task(&lease.task.id).await.state, State::Running);
    recorded(subject.store.extend(held(&lease), None).await.unwrap());
    recorded(subject.complete(&lease, "1").await);
    assert!(outside().await.is_empty());
    lost(subject.store.hand_over(long, "far away").await.unwrap());
}

async fn workers_outside_are_told_by_the_leases_that_they_hold(subject: Subject) {
    let workers = async || {
        let all = subject.store.workers(own_worker()).await.unwrap();
        let (own, outside): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|w| w.place != Place::Outside);
        assert_eq!(own.len(), 1, "{own:?}");
        assert_eq!(own[0].name, "own");
        outside
    };
    assert!(workers().await.is_empty());
    for (n, user) in ["anna", "bernd", "carla", "dora", "emil"]
        .iter()
        .enumerate()
    {
        subject.new_task(&draft(json!({"n": n})).user(user)).await;
    }
    subject.lease(LONG).await;
    assert!(
        workers().await.is_empty(),
        "a worker inside is shown outside"
    );
    let near = subject
        .store
        .lease(outside("near by", None, 1))
        .await
        .unwrap();
    let far = subject.store.lease(outside("far", None, 3)).await.unwrap();
    assert_eq!((near.len(), far.len()), (1, 3));
    let told = workers().await;
    let names: Vec<_> = told.iter().map(|w| (w.name.as_str(), w.running)).collect();
    assert_eq!(names, [("far", 3), ("near by", 1)]);
    assert_eq!(told[1].tasks, [near[0].task.id.clone()]);
    assert_eq!(told[0].types, ["plain".to_owned()].into());
    assert_eq!(Some(told[1].since), near[0].task.started_at);
    assert_eq!(told[1].heard_at, told[1].since);
    until("a later heartbeat", async || {
        recorded(subject.store.extend(held(&near[0]), None).await.unwrap());
        let told = workers().await;
        (told[1].heard_at > told[1].since).then_some(())
    })
    .await;
    // However a lease ends, it is not told of any more.
    recorded(subject.complete(&far[0], "1").await);
    recorded(subject.fail(&far[1], Some(LONG)).await);
    recorded(subject.store.release(held(&far[2])).await.unwrap());
    let cancelled = &near[0].task;
    subject
        .store
        .cancel(&cancelled.user, &cancelled.id)
        .await
        .unwrap();
    assert_eq!(workers().await.len(), 1, "it may still be running");
    recorded(subject.fail(&near[0], None).await);
    assert!(workers().await.is_empty());
    let mut short = outside("far", None, 1);
    short.lease.insert("plain".to_owned(), SHORT);
    assert_eq!(subject.store.lease(short).await.unwrap().len(), 1);
    until("the end of a silent worker", async || {
        subject.rescue().await;
        workers().await.is_empty().then_some(())
    })
    .await;
}

async fn tasks_of_a_paused_type_wait(subject: Subject) {
    let paused = async || subject.store.paused().await.unwrap();
    assert!(paused().await.is_empty());
    subject.new_task(&draft(json!({"n": 1}))).await;
    for _ in 0..2 {
        subject.store.pause("plain").await.unwrap();
        assert_eq!(paused().await, ["plain".to_owned()].into());
        assert!(subject.lease_many(9, LONG).await.is_empty());
    }
    let waiting = subject.new_task(&draft(json!({"n": 2}))).await;
    assert_eq!(waiting.state, State::Queued);
    let mut both = outside("far", None, 9);
    both.types.push("other".to_owned());
    subject
        .new_task(&draft_of(
            TaskType {
                name: "other".to_owned(),
                ..plain_type()
            },
            json!({}),
        ))
        .await;
    let other = subject.store.lease(both).await.unwrap();
    assert_eq!(other.len(), 1);
    assert_eq!(other[0].task.task_type, "other");
    for _ in 0..2 {
        subject.store.resume("plain").await.unwrap();
        assert!(paused().await.is_empty());
    }
    assert_eq!(subject.lease_many(9, LONG).await.len(), 2);
}
