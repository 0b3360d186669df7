//! One task for one key and for one content, whoever asks, as often as they ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use justonce::domain::submission::Start;
use justonce::domain::task::{Priority, State, TaskId};
use justonce::domain::task_type::DedupMode;
use justonce::store::{Admitted, Checked, MatchedBy};
use serde_json::json;

use super::promises;
use crate::support::deadline::within;
use crate::support::store::{Draft, LONG, Subject, draft, draft_of, lost, plain_type, recorded};

promises!(
    one_key_names_one_task_however_many_ask_at_once,
    one_content_is_one_task_however_many_ask_at_once,
    distinct_contents_are_distinct_tasks,
    an_admission_repeated_with_its_nonce_is_answered_as_before,
    a_reused_key_changes_nothing_and_names_the_fields,
    a_key_that_joins_by_content_is_bound,
    a_key_that_joins_under_another_rule_remembers_it,
    a_key_is_compared_under_the_rule_that_it_came_with,
    users_never_meet,
    a_check_decides_alike_and_changes_nothing,
    mode_none_matches_nothing_and_answers_for_nothing,
    mode_reject_names_the_blocking_task,
    failed_content_is_new_until_the_limit,
    a_duplicate_brings_its_priority_and_its_earlier_start,
    an_admission_wakes_a_worker,
);

const AT_ONCE: usize = 32;

async fn admitted_at_once(subject: &Subject, drafts: Vec<Draft>) -> Vec<Admitted> {
    let barrier = Arc::new(tokio::sync::Barrier::new(drafts.len()));
    let admissions = drafts.into_iter().map(|draft| {
        let (store, barrier) = (subject.store.clone(), barrier.clone());
        tokio::spawn(async move {
            barrier.wait().await;
            store.admit(draft.admission()).await.unwrap()
        })
    });
    let all = futures_util::future::join_all(admissions);
    let all = within("all admissions", all).await;
    all.into_iter().map(Result::unwrap).collect()
}

fn id_of(admitted: &Admitted) -> TaskId {
    match admitted {
        Admitted::New(answer) | Admitted::Duplicate { answer, .. } => answer.task.id.clone(),
        other => panic!("no task: {other:?}"),
    }
}

fn matched(admitted: &Admitted) -> Option<MatchedBy> {
    match admitted {
        Admitted::New(_) => None,
        Admitted::Duplicate { matched_by, .. } => Some(*matched_by),
        other => panic!("no task: {other:?}"),
    }
}

#[track_caller]
fn assert_one(admitted: &[Admitted]) {
    let ids: BTreeSet<_> = admitted.iter().map(id_of).collect();
    assert_eq!(ids.len(), 1, "not one task: {ids:?}");
    let new = admitted.iter().filter(|a| matched(a).is_none()).count();
    assert_eq!(new, 1);
}

async fn one_key_names_one_task_however_many_ask_at_once(subject: Subject) {
    let one = draft(json!({}))
        .key("k")
        .with(|s| s.dedup.mode = Some(DedupMode::None));
    assert_one(&admitted_at_once(&subject, vec![one; AT_ONCE]).await);
    assert_eq!(subject.lease_many(AT_ONCE, LONG).await.len(), 1);
}

async fn one_content_is_one_task_however_many_ask_at_once(subject: Subject) {
    let keyed = |n| draft(json!({"same": true})).key(&format!("k{n}"));
    let admitted = admitted_at_once(&subject, (0..AT_ONCE).map(keyed).collect()).await;
    assert_one(&admitted);
    let lease = subject.lease(LONG).await;
    assert!(subject.lease_many(AT_ONCE, LONG).await.is_empty());
    assert_eq!(
        subject.task(&lease.task.id).await.duplicates,
        AT_ONCE as u64 - 1
    );
    for n in 0..AT_ONCE {
        let again = subject.admit(&keyed(n)).await;
        assert_eq!(matched(&again), Some(MatchedBy::IdempotencyKey), "k{n}");
    }
}

async fn distinct_contents_are_distinct_tasks(subject: Subject) {
    let drafts = (0..AT_ONCE).map(|n| draft(json!({"n": n}))).collect();
    let admitted = admitted_at_once(&subject, drafts).await;
    let ids: BTreeSet<_> = admitted.iter().map(id_of).collect();
    let leases = subject.lease_many(AT_ONCE * 2, LONG).await;
    let leased: BTreeSet<_> = leases.into_iter().map(|l| l.task.id).collect();
    assert_eq!(leased, ids);
}

async fn an_admission_repeated_with_its_nonce_is_answered_as_before(subject: Subject) {
    for draft in [
        draft(json!({"keyed": 1})).key("k"),
        draft(json!({"keyless": 1})),
    ] {
        let admission = draft.admission();
        let first = subject.store.admit(admission.clone()).await.unwrap();
        let repeat = subject.store.admit(admission).await.unwrap();
        assert_eq!(id_of(&first), id_of(&repeat));
        assert_eq!(
            matched(&repeat),
            None,
            "a lost reply made the submission its own duplicate"
        );
        assert_eq!(subject.task(&id_of(&first)).await.duplicates, 0);
        assert_eq!(subject.lease_many(9, LONG).await.len(), 1);
    }
}

async fn a_reused_key_changes_nothing_and_names_the_fields(subject: Subject) {
    let task = subject
        .new_task(&draft(json!({"a": 1, "b": 1})).key("k"))
        .await;
    let other = draft(json!({"a": 1, "b": 2})).key("k");
    for _ in 0..2 {
        let Admitted::KeyReused { differs } = subject.admit(&other).await else {
            panic!("a key was used for two contents");
        };
        assert_eq!(differs, ["/params/b"]);
    }
    assert_eq!(subject.lease_many(9, LONG).await.len(), 1);
    assert_eq!(subject.task(&task.id).await.duplicates, 0);
    // The content that was refused is still new.
    subject.new_task(&draft(json!({"a": 1, "b": 2}))).await;
}

async fn a_key_that_joins_by_content_is_bound(subject: Subject) {
    let task = subject.new_task(&draft(json!({"n": 1}))).await;
    let joined = subject.admit(&draft(json!({"n": 1})).key("late")).await;
    assert_eq!(
        (id_of(&joined), matched(&joined)),
        (task.id.clone(), Some(MatchedBy::Fingerprint))
    );
    let replay = subject.admit(&draft(json!({"n": 1})).key("late")).await;
    assert_eq!(
        (id_of(&replay), matched(&replay)),
        (task.id, Some(MatchedBy::IdempotencyKey))
    );
    let other = subject.admit(&draft(json!({"n": 2})).key("late")).await;
    assert!(matches!(other, Admitted::KeyReused { .. }), "{other:?}");
}

async fn a_key_that_joins_under_another_rule_remembers_it(subject: Subject) {
    let task = subject.new_task(&draft(json!({"n": 1}))).await;
    let mut today = plain_type();
    today.dedup.ignore = vec!["/trace".to_owned()];
    let of = |params| draft_of(today.clone(), params).key("late");
    let joined = subject.admit(&of(json!({"n": 1, "trace": "x"}))).await;
    assert_eq!(
        (id_of(&joined), matched(&joined)),
        (task.id.clone(), Some(MatchedBy::Fingerprint))
    );
    let replay = subject.admit(&of(json!({"n": 1, "trace": "y"}))).await;
    assert_eq!(
        (id_of(&replay), matched(&replay)),
        (task.id, Some(MatchedBy::IdempotencyKey))
    );
    let other = subject.admit(&of(json!({"n": 2, "trace": "x"}))).await;
    let Admitted::KeyReused { differs } = other else {
        panic!("another content under the same key: {other:?}");
    };
    assert_eq!(differs, ["/params/n"]);
}

async fn a_key_is_compared_under_the_rule_that_it_came_with(subject: Subject) {
    let task = subject
        .new_task(&draft(json!({"n": 1, "trace": "x"})).key("k"))
        .await;
    let mut today = plain_type();
    today.version = 2;
    today.dedup.ignore = vec!["/trace".to_owned()];
    let repeat = subject
        .admit(&draft_of(today.clone(), json!({"n": 1, "trace": "x"})).key("k"))
        .await;
    assert_eq!(
        (id_of(&repeat), matched(&repeat)),
        (task.id, Some(MatchedBy::IdempotencyKey))
    );
    // Under today's rule these two would be the same; under the recorded one they are not.
    let other = subject
        .admit(&draft_of(today, json!({"n": 1, "trace": "y"})).key("k"))
        .await;
    let Admitted::KeyReused { differs } = other else {
        panic!("compared under today's rule: {other:?}");
    };
    assert_eq!(differs, ["/params/trace"]);
}

async fn users_never_meet(subject: Subject) {
    let mine = subject.new_task(&draft(json!({"n": 1})).key("k")).await;
    let theirs = subject
        .new_task(&draft(json!({"n": 1})).key("k").user("other"))
        .await;
    assert_ne!(mine.id, theirs.id);
    assert_ne!(mine.fingerprint, theirs.fingerprint);
    let foreign = subject
        .store
        .get(&crate::support::store::user(), &theirs.id)
        .await
        .unwrap();
    assert!(
        matches!(
            foreign,
            justonce::store::Found::Missing(justonce::store::Missing::Unknown)
        ),
        "another user's task is shown: {foreign:?}"
    );
}

async fn a_check_decides_alike_and_changes_nothing(subject: Subject) {
    let check = async |draft: &Draft| subject.store.check(draft.admission()).await.unwrap();
    let one = draft(json!({"n": 1})).key("k");
    assert!(matches!(check(&one).await, Checked::New));
    assert!(subject.lease_many(1, LONG).await.is_empty());
    let task = subject.new_task(&one).await;
    let by = async |draft: &Draft| match check(draft).await {
        Checked::Duplicate {
            task, matched_by, ..
        } => (task.id, matched_by),
        other => panic!("no duplicate: {other:?}"),
    };
    assert_eq!(by(&one).await, (task.id.clone(), MatchedBy::IdempotencyKey));
    let other_key = draft(json!({"n": 1})).key("other");
    assert_eq!(
        by(&other_key).await,
        (task.id.clone(), MatchedBy::Fingerprint)
    );
    let reused = check(&draft(json!({"n": 2})).key("k")).await;
    assert!(matches!(reused, Checked::KeyReused { .. }), "{reused:?}");
    assert_eq!(subject.task(&task.id).await.duplicates, 0);
    subject.new_task(&draft(json!({"n": 3})).key("other")).await;
}

async fn mode_none_matches_nothing_and_answers_for_nothing(subject: Subject) {
    let free = draft(json!({"n": 1})).with(|s| s.dedup.mode = Some(DedupMode::None));
    let first = subject.new_task(&free).await;
    subject.new_task(&free).await;
    let plain = subject.new_task(&draft(json!({"n": 1}))).await;
    subject.new_task(&free).await;
    assert_eq!(first.fingerprint, None);
    assert!(plain.fingerprint.is_some());
    assert_eq!(subject.lease_many(9, LONG).await.len(), 4);
}

async fn mode_reject_names_the_blocking_task(subject: Subject) {
    let task = subject.new_task(&draft(json!({"n": 1}))).await;
    let strict = draft(json!({"n": 1}))
        .key("k")
        .with(|s| s.dedup.mode = Some(DedupMode::Reject));
    let Admitted::Rejected(blocking) = subject.admit(&strict).await else {
        panic!("a duplicate was not rejected");
    };
    assert_eq!(blocking.id, task.id);
    // The rejection bound no key.
    subject.new_task(&draft(json!({"n": 2})).key("k")).await;
}

async fn failed_content_is_new_until_the_limit(subject: Subject) {
    let mut limited = plain_type();
    limited.dedup.max_resubmissions = 2;
    let one = draft_of(limited, json!({"n": 1}));
    let mut newest = subject.failed(&one).await;
    for _ in 0..2 {
        let again = subject.failed(&one).await;
        assert_ne!(again.id, newest.id);
        newest = again;
    }
    let over = subject.admit(&one).await;
    assert_eq!(
        (id_of(&over), matched(&over)),
        (newest.id, Some(MatchedBy::Fingerprint))
    );
}

async fn a_duplicate_brings_its_priority_and_its_earlier_start(subject: Subject) {
    let priority = |value| Priority::new(value).unwrap();
    let late = draft(json!({"n": 1})).with(|s| {
        s.start = Start::After(Duration::from_secs(3600));
        s.priority = Some(priority(8));
    });
    let task = subject.new_task(&late).await;
    assert_eq!(task.state, State::Scheduled);
    assert!(subject.lease_many(1, LONG).await.is_empty());
    let urgent = draft(json!({"n": 1})).with(|s| s.priority = Some(priority(1)));
    assert_eq!(id_of(&subject.admit(&urgent).await), task.id);
    let lazy = draft(json!({"n": 1})).with(|s| s.priority = Some(priority(9)));
    subject.admit(&lazy).await;
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, task.id);
    assert_eq!(lease.task.priority, priority(1));
    let done = recorded(subject.complete(&lease, "{}").await);
    assert_eq!(done.state, State::Succeeded);
    lost(subject.fail(&lease, None).await);
}

async fn an_admission_wakes_a_worker(subject: Subject) {
    let store = subject.store.clone();
    let woken = tokio::spawn(async move { store.signals().work().await });
    let task = subject.new_task(&draft(json!({"n": 1}))).await;
    within("the signal of work", woken).await.unwrap();
    let mut watch = subject.store.watch(&task.id);
    let lease = subject.lease(LONG).await;
    recorded(subject.complete(&lease, "1").await);
    within("the signal of a change", watch.changed()).await;
}
