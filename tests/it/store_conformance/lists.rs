//! Lists, ledgers and counts.

use std::collections::BTreeSet;

use justonce::domain::idempotency_key::IdempotencyKey;
use justonce::domain::task::State;
use justonce::store::{Found, LedgerEntry, ListFilter, MatchedBy};
use serde_json::json;

use super::promises;
use crate::support::store::{LONG, Subject, draft, recorded, user};

promises!(
    a_list_is_newest_first_and_its_cursor_is_stable,
    filters_find_exactly_what_they_name,
    a_ledger_keeps_the_newest_and_counts_all,
    counts_add_up,
);

async fn a_list_is_newest_first_and_its_cursor_is_stable(subject: Subject) {
    const TASKS: usize = 25;
    let mut made = Vec::new();
    for n in 0..TASKS {
        made.push(subject.new_task(&draft(json!({"n": n}))).await.id);
    }
    subject.new_task(&draft(json!({})).user("other")).await;
    let mut filter = ListFilter {
        limit: 7,
        ..ListFilter::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = subject.store.list(&user(), filter.clone()).await.unwrap();
        assert!(page.tasks.len() <= 7);
        listed.extend(page.tasks.into_iter().map(|task| task.id));
        let Some(next) = page.next else {
            break;
        };
        filter.cursor = Some(next);
        // What comes in meanwhile is newer than the cursor, and shifts nothing.
        subject
            .new_task(&draft(json!({"meanwhile": listed.len()})))
            .await;
    }
    made.reverse();
    assert_eq!(listed, made);
}

async fn filters_find_exactly_what_they_name(subject: Subject) {
    let done = subject
        .succeeded(&draft(json!({"n": 1})).key("k").tag("team", "red"))
        .await;
    let waiting = subject
        .new_task(&draft(json!({"n": 2})).tag("team", "blue"))
        .await;
    subject.admit(&draft(json!({"n": 2})).key("joined")).await;
    let found = async |change: fn(&mut ListFilter)| {
        let mut filter = ListFilter {
            limit: 100,
            ..ListFilter::default()
        };
        change(&mut filter);
        let page = subject.store.list(&user(), filter).await.unwrap();
        page.tasks
            .into_iter()
            .map(|task| task.id)
            .collect::<Vec<_>>()
    };
    let (done_id, waiting_id) = (vec![done.id.clone()], vec![waiting.id.clone()]);
    let both = vec![waiting.id.clone(), done.id.clone()];
    assert_eq!(found(|f| f.state = Some(State::Succeeded)).await, done_id);
    assert_eq!(found(|f| f.state = Some(State::Failed)).await, []);
    assert_eq!(found(|f| f.task_type = Some("plain".into())).await, both);
    assert_eq!(found(|f| f.task_type = Some("none".into())).await, []);
    assert_eq!(
        found(|f| f.tag = Some(("team".into(), Some("red".into())))).await,
        done_id
    );
    assert_eq!(found(|f| f.tag = Some(("team".into(), None))).await, both);
    assert_eq!(
        found(|f| f.key = IdempotencyKey::parse(b"k").ok()).await,
        done_id
    );
    assert_eq!(
        found(|f| f.key = IdempotencyKey::parse(b"joined").ok()).await,
        waiting_id
    );
    let filter = ListFilter {
        fingerprint: done.fingerprint,
        limit: 9,
        ..ListFilter::default()
    };
    let page = subject.store.list(&user(), filter).await.unwrap();
    assert_eq!(page.tasks.len(), 1);
    assert_eq!(page.tasks[0].id, done.id);
}

async fn a_ledger_keeps_the_newest_and_counts_all(subject: Subject) {
    const DUPLICATES: usize = LedgerEntry::KEPT_MAX + 5;
    let task = subject.new_task(&draft(json!({})).key("k")).await;
    for n in 0..DUPLICATES {
        let mut admission = draft(json!({})).key(&format!("k{n}")).admission();
        admission.request_id = format!("request-{n}").into();
        admission.bytes_not_sent = 10;
        subject.store.admit(admission).await.unwrap();
    }
    let Found::Here(entries) = subject.store.ledger(&user(), &task.id).await.unwrap() else {
        panic!("no ledger");
    };
    assert_eq!(entries.len(), LedgerEntry::KEPT_MAX);
    let newest = &entries[0];
    assert_eq!(newest.request_id, format!("request-{}", DUPLICATES - 1));
    assert_eq!(newest.matched_by, MatchedBy::Fingerprint);
    assert_eq!(newest.key, Some(format!("k{}", DUPLICATES - 1)));
    let distinct: BTreeSet<_> = entries.iter().map(|entry| &entry.request_id).collect();
    assert_eq!(distinct.len(), entries.len());
    assert!(
        !distinct.contains(&"request-0".to_owned()),
        "the oldest was kept"
    );
    assert_eq!(subject.task(&task.id).await.duplicates, DUPLICATES as u64);
}

async fn counts_add_up(subject: Subject) {
    subject.succeeded(&draft(json!({"n": 1})).key("k")).await;
    subject.failed(&draft(json!({"n": 2}))).await;
    subject.new_task(&draft(json!({"n": 3}))).await;
    let retried = subject.lease(LONG).await;
    recorded(subject.fail(&retried, Some(LONG)).await);
    subject.new_task(&draft(json!({"n": 4}))).await;
    let running = subject.lease(LONG).await;
    subject.new_task(&draft(json!({"n": 5}))).await;
    let cancelled = subject.new_task(&draft(json!({"n": 6}))).await;
    subject.store.cancel(&user(), &cancelled.id).await.unwrap();
    subject.admit(&draft(json!({"n": 1})).key("k")).await;
    subject.admit(&draft(json!({"n": 1}))).await;
    subject.admit(&draft(json!({"n": 5}))).await;
    subject.admit(&draft(json!({"n": 7})).key("k")).await;
    subject
        .new_task(&draft(json!({"n": 1})).user("other"))
        .await;

    let mine = subject.store.stats(Some(&user())).await.unwrap();
    let expected = [
        (State::Scheduled, 0),
        (State::Queued, 1),
        (State::Running, 1),
        (State::Retrying, 1),
        (State::Succeeded, 1),
        (State::Failed, 1),
        (State::Cancelled, 1),
    ];
    for (state, count) in expected {
        assert_eq!(mine.counts.of(state), count, "{state:?}");
        assert_eq!(mine.by_type["plain"].of(state), count, "{state:?}");
    }
    assert_eq!(
        (mine.counts.total(), mine.counts.pending(), mine.running),
        (6, 2, 1)
    );
    for tally in [
        mine.windows.all,
        mine.windows.minute,
        mine.windows.hour,
        mine.windows.day,
    ] {
        assert_eq!(tally.accepted, 6);
        assert_eq!(tally.duplicates_by_key, 1);
        assert_eq!(tally.duplicates_by_fingerprint, 2);
        assert_eq!(tally.cache_hits, 2);
        assert_eq!(tally.key_reused, 1);
        assert_eq!(tally.attempts, 4);
        assert_eq!(tally.failures, 1);
    }
    assert_eq!(mine.latency.queue_wait.count(), 4);
    let all = subject.store.stats(None).await.unwrap();
    assert_eq!(all.counts.total(), 7);
    assert_eq!(all.windows.all.accepted, 7);

    // An ended task stays counted where it ended, and nothing is counted twice.
    recorded(subject.complete(&running, "1").await);
    let after = subject.store.stats(Some(&user())).await.unwrap();
    assert_eq!((after.counts.of(State::Succeeded), after.running), (2, 0));
    assert_eq!(after.counts.total(), 6);
}
