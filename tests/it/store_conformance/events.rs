//! What has happened to a task: numbered, and kept as far as there is room.

use std::time::Duration;

use justonce::domain::event::{Event, EventKind};
use justonce::domain::submission::Start;
use justonce::domain::task::{Progress, State};
use serde_json::json;

use super::promises;
use crate::support::deadline::{until, within};
use crate::support::store::{LONG, Subject, draft, held, inline, recorded};

promises!(
    every_visible_change_is_an_event,
    a_task_that_was_released_cancelled_and_redriven_tells_it,
    what_is_not_known_any_more_is_told_as_a_reset,
    what_changes_nothing_is_no_event,
    whoever_follows_a_user_hears_of_each_change,
);

fn outline(events: &[Event<'_>]) -> Vec<(u64, &'static str, State, u32)> {
    let outline = |event: &Event<'_>| {
        let (state, attempt) = (event.task.state, event.task.attempt);
        (event.number, event.kind.name(), state, attempt)
    };
    events.iter().map(outline).collect()
}

fn done(done: f64) -> Progress {
    Progress {
        done,
        total: Some(9.0),
        message: Some("a\tb\nc €".to_owned()),
    }
}

async fn every_visible_change_is_an_event(subject: Subject) {
    let soon = Duration::from_millis(1);
    let task = draft(json!({})).with(|s| s.start = Start::After(soon));
    let task = subject.new_task(&task).await;
    assert_eq!(task.changes.count(), 1);
    let lease = until("the start", async || {
        subject.rescue().await;
        subject.lease_many(1, LONG).await.pop()
    })
    .await;
    for n in [1.0, 2.0] {
        let extended = subject.store.extend(held(&lease), Some(done(n))).await;
        recorded(extended.unwrap());
    }
    recorded(subject.fail(&lease, Some(soon)).await);
    let lease = until("the next attempt", async || {
        subject.rescue().await;
        subject.lease_many(1, LONG).await.pop()
    })
    .await;
    recorded(subject.complete(&lease, "1").await);
    let now = subject.task(&task.id).await;
    let events = now.events_after(0);
    assert_eq!(
        outline(&events),
        [
            (1, "state", State::Scheduled, 0),
            (2, "state", State::Queued, 0),
            (3, "state", State::Running, 1),
            (4, "progress", State::Running, 1),
            (5, "progress", State::Running, 1),
            (6, "attempt", State::Retrying, 1),
            (7, "state", State::Queued, 1),
            (8, "attempt", State::Running, 2),
            (9, "state", State::Succeeded, 2),
        ]
    );
    let at = |number: usize| &events[number - 1].task;
    assert_eq!(at(1).scheduled_at, task.scheduled_at);
    assert_eq!((&at(2).progress, at(2).started_at), (&None, None));
    assert_eq!(at(4).progress, Some(done(1.0)));
    assert_eq!(at(5).progress, Some(done(2.0)));
    assert!(at(5).error.is_none() && at(6).error.is_some());
    assert!(at(6).next_attempt_at.is_some() && at(7).next_attempt_at.is_none());
    assert!(at(3).started_at < at(8).started_at);
    assert_eq!(at(3).started_at, at(6).started_at);
    for number in 1..9 {
        assert!(at(number).outcome.is_none() && at(number).finished_at.is_none());
    }
    assert!(at(9).outcome.is_some() && at(9).finished_at.is_some());
    for seen in 0..9 {
        let rest = now.events_after(seen);
        assert_eq!(outline(&rest), outline(&events)[seen as usize..]);
    }
    assert!(now.events_after(9).is_empty());
    assert_eq!(
        outline(&now.events_after(10)),
        [(9, "reset", State::Succeeded, 2)]
    );
    assert_eq!(now.newest_event().kind, EventKind::State);
}

async fn a_task_that_was_released_cancelled_and_redriven_tells_it(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let lease = subject.lease(LONG).await;
    recorded(subject.store.release(held(&lease)).await.unwrap());
    subject.store.cancel(&task.user, &task.id).await.unwrap();
    subject.store.redrive(&task.user, &task.id).await.unwrap();
    let now = subject.task(&task.id).await;
    assert_eq!(
        outline(&now.events_after(0)),
        [
            (1, "state", State::Queued, 0),
            (2, "state", State::Running, 1),
            (3, "state", State::Queued, 0),
            (4, "state", State::Cancelled, 0),
            (5, "state", State::Queued, 0),
        ]
    );
}

async fn what_is_not_known_any_more_is_told_as_a_reset(subject: Subject) {
    let task = subject.new_task(&draft(json!({}))).await;
    let lease = subject.lease(LONG).await;
    const REPORTS: u64 = 100;
    for n in 0..REPORTS {
        let extended = subject
            .store
            .extend(held(&lease), Some(done(n as f64)))
            .await;
        recorded(extended.unwrap());
    }
    let now = subject.task(&task.id).await;
    let count = REPORTS + 2;
    assert_eq!(now.changes.count(), count);
    for seen in [0, 1, 2, 30] {
        let told = now.events_after(seen);
        assert_eq!(
            outline(&told),
            [(count, "reset", State::Running, 1)],
            "{seen}"
        );
    }
    let told = now.events_after(count - 5);
    let kept: Vec<_> = told
        .iter()
        .map(|event| (event.number, event.kind))
        .collect();
    assert_eq!(
        kept,
        (count - 4..=count)
            .map(|n| (n, EventKind::Progress))
            .collect::<Vec<_>>()
    );
    assert_eq!(told[0].task.progress, Some(done((REPORTS - 5) as f64)));
    assert_eq!(now.newest_event().kind, EventKind::Progress);
}

async fn what_changes_nothing_is_no_event(subject: Subject) {
    let task = subject.new_task(&draft(json!({})).key("k")).await;
    subject.admit(&draft(json!({})).key("other")).await;
    let lease = subject.lease(LONG).await;
    for _ in 0..2 {
        let extended = subject.store.extend(held(&lease), Some(done(1.0))).await;
        recorded(extended.unwrap());
    }
    recorded(subject.store.extend(held(&lease), None).await.unwrap());
    for _ in 0..2 {
        recorded(
            subject
                .store
                .complete(held(&lease), inline("1"))
                .await
                .unwrap(),
        );
    }
    subject.admit(&draft(json!({})).key("k")).await;
    assert_eq!(subject.task(&task.id).await.changes.count(), 4);
}

async fn whoever_follows_a_user_hears_of_each_change(subject: Subject) {
    let user = crate::support::store::user();
    let mut following = subject.store.follow(&user);
    let task = subject.new_task(&draft(json!({}))).await;
    let mut heard = async || {
        loop {
            // None: news were missed, as when a store begins to listen.
            match within("news of the task", following.changed()).await {
                Some(id) if id == task.id => return,
                Some(_) | None => {}
            }
        }
    };
    heard().await;
    let lease = subject.lease(LONG).await;
    heard().await;
    recorded(subject.complete(&lease, "1").await);
    heard().await;
}
