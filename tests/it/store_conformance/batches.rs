//! Many submissions at once are decided as if they had come one after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use justonce::domain::digest::Sha256Digest;
use justonce::domain::file::File;
use justonce::domain::submission::Start;
use justonce::domain::task::TaskId;
use justonce::store::{Admission, Admitted, MatchedBy};
use serde_json::json;

use super::promises;
use crate::support::store::{Draft, LONG, Subject, draft, draft_of, plain_type};

promises!(
    the_earlier_one_makes_the_task_whatever_else_it_asks,
    what_one_meets_harms_no_other,
    a_batch_repeated_with_its_nonces_is_answered_as_before,
    a_batch_larger_than_a_step_keeps_its_order,
    a_key_is_bound_before_the_next_one_is_compared_with_it,
    ended_tasks_answer_within_a_batch,
    users_of_one_batch_never_meet,
);

async fn admit_all(subject: &Subject, admissions: Vec<Admission>) -> Vec<Admitted> {
    let count = admissions.len();
    let admitted = subject.store.admit_many(admissions).await;
    assert_eq!(admitted.len(), count);
    admitted.into_iter().map(Result::unwrap).collect()
}

async fn admit_many(subject: &Subject, drafts: &[Draft]) -> Vec<Admitted> {
    admit_all(subject, drafts.iter().map(Draft::admission).collect()).await
}

fn found(admitted: &Admitted) -> (TaskId, Option<MatchedBy>) {
    match admitted {
        Admitted::New(answer) => (answer.task.id.clone(), None),
        Admitted::Duplicate { answer, matched_by } => (answer.task.id.clone(), Some(*matched_by)),
        other => panic!("no task: {other:?}"),
    }
}

const BY_KEY: Option<MatchedBy> = Some(MatchedBy::IdempotencyKey);
const BY_CONTENT: Option<MatchedBy> = Some(MatchedBy::Fingerprint);

async fn the_earlier_one_makes_the_task_whatever_else_it_asks(subject: Subject) {
    let n = |n: u32| draft(json!({"n": n}));
    let later = |s: &mut justonce::domain::submission::Submission| {
        s.start = Start::After(Duration::from_secs(3600));
    };
    let drafts = [
        // What asks for more than to run at once takes another way through some stores.
        n(1).tag("a", "b").key("k1"),
        n(1),
        n(1).key("k1"),
        n(2).with(later),
        n(2).key("k2"),
        n(2).key("k2"),
        n(3),
        n(3).tag("a", "b").key("k3"),
        n(3).key("k3"),
    ];
    let admitted = admit_many(&subject, &drafts).await;
    let all: Vec<_> = admitted.iter().map(found).collect();
    let ids: Vec<_> = all.iter().map(|(id, _)| id.clone()).collect();
    assert!(ids[0] == ids[1] && ids[0] == ids[2], "{ids:?}");
    assert!(ids[3] == ids[4] && ids[3] == ids[5], "{ids:?}");
    assert!(ids[6] == ids[7] && ids[6] == ids[8], "{ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3);
    let matched: Vec<_> = all.into_iter().map(|(_, matched)| matched).collect();
    let one = [None, BY_CONTENT, BY_KEY];
    let two = [None, BY_CONTENT, BY_KEY];
    assert_eq!(matched, [one, two, two].concat());
    assert_eq!(subject.task(&ids[0]).await.tags["a"], "b");
    for id in [&ids[0], &ids[3], &ids[6]] {
        assert_eq!(subject.task(id).await.duplicates, 2);
    }
    assert_eq!(subject.lease_many(9, LONG).await.len(), 3);
}

async fn what_one_meets_harms_no_other(subject: Subject) {
    let n = |n: u32| draft(json!({"n": n}));
    let gone = File {
        part: None,
        sha256: Sha256Digest::of(b"never uploaded"),
        size: 14,
        name: None,
        media_type: None,
        generation: None,
    };
    let drafts = [
        n(1).key("k"),
        n(2).key("k"),
        n(3).file(&gone),
        n(4),
        n(2).key("other"),
    ];
    let admitted = admit_many(&subject, &drafts).await;
    assert_eq!(found(&admitted[0]).1, None);
    let Admitted::KeyReused { differs } = &admitted[1] else {
        panic!("a key was used for two contents: {:?}", admitted[1]);
    };
    assert_eq!(differs, &["/params/n"]);
    assert!(
        matches!(admitted[2], Admitted::FileUnknown(sha256) if sha256 == gone.sha256),
        "{:?}",
        admitted[2]
    );
    // What was refused under a used key is still new.
    assert_eq!((found(&admitted[3]).1, found(&admitted[4]).1), (None, None));
    assert_eq!(subject.lease_many(9, LONG).await.len(), 3);
}

async fn a_batch_repeated_with_its_nonces_is_answered_as_before(subject: Subject) {
    let drafts: Vec<_> = (0..5)
        .map(|n| match n % 2 {
            0 => draft(json!({"n": n})),
            _ => draft(json!({"n": n})).key(&format!("k{n}")),
        })
        .collect();
    let admissions: Vec<_> = drafts.iter().map(Draft::admission).collect();
    let first = admit_all(&subject, admissions.clone()).await;
    let repeat = admit_all(&subject, admissions).await;
    for (first, repeat) in first.iter().zip(&repeat) {
        assert_eq!(found(first), found(repeat));
    }
    assert_eq!(subject.lease_many(9, LONG).await.len(), 5);
    // A client that sends the batch anew gets the same tasks.
    let anew = admit_many(&subject, &drafts).await;
    for (n, (first, anew)) in first.iter().zip(&anew).enumerate() {
        let by = if n % 2 == 0 { BY_CONTENT } else { BY_KEY };
        assert_eq!(found(anew), (found(first).0, by), "{n}");
    }
}

async fn a_batch_larger_than_a_step_keeps_its_order(subject: Subject) {
    const COUNT: usize = 300;
    // Every content comes once with a key and, much later, once without.
    let content = |n: usize| draft(json!({"n": n}));
    let first = (0..COUNT).map(|n| content(n).key(&format!("k{n}")));
    let drafts: Vec<_> = first.chain((0..COUNT).map(content)).collect();
    let admitted = admit_many(&subject, &drafts).await;
    let (new, repeats) = admitted.split_at(COUNT);
    for (n, (new, repeat)) in new.iter().zip(repeats).enumerate() {
        assert_eq!(found(new).1, None, "{n}");
        assert_eq!(found(repeat), (found(new).0, BY_CONTENT), "{n}");
    }
    let counted = subject.store.stats(None).await.unwrap().windows.all;
    assert_eq!(counted.accepted, COUNT as u64);
    assert_eq!(counted.duplicates_by_fingerprint, COUNT as u64);
}

async fn a_key_is_bound_before_the_next_one_is_compared_with_it(subject: Subject) {
    let task = subject.new_task(&draft(json!({"n": 1}))).await;
    let mut today = plain_type();
    today.dedup.ignore = vec!["/trace".to_owned()];
    let of = |params| draft_of(today.clone(), params).key("late");
    let drafts = [
        of(json!({"n": 1, "trace": "x"})),
        of(json!({"n": 1, "trace": "y"})),
        of(json!({"n": 2})),
        of(json!({"n": 1})),
    ];
    let admitted = admit_many(&subject, &drafts).await;
    assert_eq!(found(&admitted[0]), (task.id.clone(), BY_CONTENT));
    assert_eq!(found(&admitted[1]), (task.id.clone(), BY_KEY));
    assert!(
        matches!(admitted[2], Admitted::KeyReused { .. }),
        "{:?}",
        admitted[2]
    );
    assert_eq!(found(&admitted[3]), (task.id, BY_KEY));
    assert_eq!(subject.lease_many(9, LONG).await.len(), 1);
}

async fn ended_tasks_answer_within_a_batch(subject: Subject) {
    let done = draft(json!({"n": 1})).key("k");
    let task = subject.succeeded(&done).await;
    // So that a store may answer the next ones from its memory.
    subject.admit(&done).await;
    let drafts = [
        draft(json!({"n": 2})),
        done.clone(),
        draft(json!({"n": 3})),
        draft(json!({"n": 9})).key("k"),
        draft(json!({"n": 1})),
    ];
    let admitted = admit_many(&subject, &drafts).await;
    assert_eq!(found(&admitted[1]), (task.id.clone(), BY_KEY));
    assert_eq!(found(&admitted[4]), (task.id, BY_CONTENT));
    assert_eq!((found(&admitted[0]).1, found(&admitted[2]).1), (None, None));
    assert!(
        matches!(admitted[3], Admitted::KeyReused { .. }),
        "{:?}",
        admitted[3]
    );
    assert!(admit_many(&subject, &[]).await.is_empty());
}

async fn users_of_one_batch_never_meet(subject: Subject) {
    let of = |user: &str| draft(json!({"n": 1})).user(user).key("k");
    let users = ["ann", "bob", "cleo", "ann", "bob", "cleo"];
    let drafts: Vec<_> = users.iter().map(|user| of(user)).collect();
    let admitted = admit_many(&subject, &drafts).await;
    for (at, one) in admitted.iter().enumerate() {
        let (Admitted::New(answer) | Admitted::Duplicate { answer, .. }) = one else {
            panic!("{one:?}");
        };
        assert_eq!(answer.task.user.as_str(), users[at]);
        let by = if at < 3 { None } else { BY_KEY };
        assert_eq!(found(one), (found(&admitted[at % 3]).0, by));
    }
    assert_eq!(subject.lease_many(9, LONG).await.len(), 3);
}
