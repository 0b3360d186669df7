//! What a new version of a task type makes of content that an older one has had.

use justonce::domain::task::{Task, TaskId};
use justonce::domain::task_type::{OnOlderVersion, TaskType};
use justonce::store::{Admitted, Checked, MatchedBy};
use serde_json::json;

use super::promises;
use crate::support::store::{LONG, Subject, draft, draft_of, plain_type, recorded};

promises!(
    a_new_version_makes_all_work_new,
    a_task_of_an_older_version_answers_where_the_type_says_so,
    a_key_that_joins_an_older_version_is_bound_under_todays,
    what_failed_under_an_older_version_runs_again,
    a_task_of_todays_version_answers_before_older_ones,
);

fn version(version: u32, on_older_version: OnOlderVersion) -> TaskType {
    let mut made = plain_type();
    made.version = version;
    made.dedup.on_older_version = on_older_version;
    made
}

fn reusing(number: u32) -> TaskType {
    version(number, OnOlderVersion::Reuse)
}

#[track_caller]
fn by_content(admitted: Admitted) -> TaskId {
    match admitted {
        Admitted::Duplicate {
            answer,
            matched_by: MatchedBy::Fingerprint,
        } => answer.task.id.clone(),
        other => panic!("no duplicate: {other:?}"),
    }
}

async fn a_new_version_makes_all_work_new(subject: Subject) {
    let old: Task = subject.succeeded(&draft(json!({"n": 1}))).await;
    let rerun = draft_of(version(2, OnOlderVersion::Rerun), json!({"n": 1}));
    assert_ne!(subject.new_task(&rerun).await.id, old.id);
}

async fn a_task_of_an_older_version_answers_where_the_type_says_so(subject: Subject) {
    let waiting = subject.new_task(&draft(json!({"n": 1}))).await;
    let lease = subject.lease(LONG).await;
    let of = |n: u32| draft_of(reusing(4), json!({"n": n}));
    // While it is running, and after its end, also when it is asked for again and again.
    assert_eq!(by_content(subject.admit(&of(1)).await), waiting.id);
    recorded(subject.complete(&lease, "1").await);
    for _ in 0..3 {
        assert_eq!(by_content(subject.admit(&of(1)).await), waiting.id);
    }
    assert_eq!(subject.task(&waiting.id).await.duplicates, 4);
    let checked = subject.store.check(of(1).admission()).await.unwrap();
    assert!(
        matches!(&checked, Checked::Duplicate { task, .. } if task.id == waiting.id),
        "{checked:?}"
    );
    // The next type to be declared may think otherwise, at once.
    let rerun = draft_of(version(4, OnOlderVersion::Rerun), json!({"n": 1}));
    assert_ne!(subject.new_task(&rerun).await.id, waiting.id);
    // Other content is new, and so is what lies too many versions back.
    subject.new_task(&of(2)).await;
    let far = draft_of(reusing(2 + TaskType::OLDER_VERSIONS_MAX), json!({"n": 3}));
    subject.new_task(&draft(json!({"n": 3}))).await;
    subject.new_task(&far).await;
}

async fn a_key_that_joins_an_older_version_is_bound_under_todays(subject: Subject) {
    let old = subject.succeeded(&draft(json!({"n": 1}))).await;
    let of = |n: u32| draft_of(reusing(2), json!({"n": n})).key("k");
    assert_eq!(by_content(subject.admit(&of(1)).await), old.id);
    let replay = subject.admit(&of(1)).await;
    let Admitted::Duplicate { answer, matched_by } = replay else {
        panic!("the key was not bound: {replay:?}");
    };
    assert_eq!(
        (answer.task.id.clone(), matched_by),
        (old.id, MatchedBy::IdempotencyKey)
    );
    let other = subject.admit(&of(2)).await;
    let Admitted::KeyReused { differs } = other else {
        panic!("another content under the same key: {other:?}");
    };
    assert_eq!(differs, ["/params/n"]);
}

async fn what_failed_under_an_older_version_runs_again(subject: Subject) {
    let mut strict = plain_type();
    strict.dedup.max_resubmissions = 0;
    let old = draft_of(strict, json!({"n": 1}));
    let failed = subject.failed(&old).await;
    assert_eq!(by_content(subject.admit(&old).await), failed.id);
    let mut today = reusing(2);
    today.dedup.max_resubmissions = 0;
    let again = subject.new_task(&draft_of(today, json!({"n": 1}))).await;
    assert_ne!(again.id, failed.id);
}

async fn a_task_of_todays_version_answers_before_older_ones(subject: Subject) {
    let old = subject.succeeded(&draft(json!({"n": 1}))).await;
    let today = draft_of(version(2, OnOlderVersion::Rerun), json!({"n": 1}));
    let new = subject.succeeded(&today).await;
    assert_ne!(old.id, new.id);
    let reuse = draft_of(reusing(2), json!({"n": 1}));
    assert_eq!(by_content(subject.admit(&reuse).await), new.id);
    let later = draft_of(reusing(3), json!({"n": 1}));
    assert_eq!(by_content(subject.admit(&later).await), new.id);
}
