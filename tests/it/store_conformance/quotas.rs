//! Quotas: what one user has is decided in the step that would add to it, and spent by nothing else.

use std::collections::HashMap;

use futures_util::future::join_all;
use justonce::domain::callback::Callback;
use justonce::domain::principal::UserId;
use justonce::domain::task_type::DedupMode;
use justonce::store::{Admitted, Holder, Lease, LeaseRequest, Redriven};
use serde_json::json;

use super::promises;
use crate::support::store::{
    Draft, LONG, Subject, draft, held, inline, recorded, redis_under, user,
};

promises!(
    a_user_has_room_for_so_many_unfinished_tasks,
    duplicates_and_repeats_need_no_room,
    no_race_gets_past_the_quota,
    a_batch_takes_what_room_there_is,
    tasks_count_from_their_submission_to_their_end,
    what_gives_way_makes_room,
    deliveries_are_nobodys_use,
    a_window_has_so_many_requests,
);

#[track_caller]
fn exceeds(admitted: &Admitted, max: u64) {
    let is_exceeded =
        matches!(admitted, Admitted::QuotaExceeded { unfinished_max } if *unfinished_max == max);
    assert!(is_exceeded, "{admitted:?}");
}

async fn a_user_has_room_for_so_many_unfinished_tasks(subject: Subject) {
    let own = |n: u32| draft(json!({"n": n})).quota(2);
    // One after the other on the short way of what is plainly new, and on the other one.
    subject.new_task(&own(1)).await;
    subject.new_task(&own(2).tag("a", "b")).await;
    let over = own(3).key("k");
    exceeds(&subject.admit(&over).await, 2);
    exceeds(&subject.admit(&own(3).tag("a", "b")).await, 2);
    let anew = own(1).with(|submission| submission.dedup.mode = Some(DedupMode::None));
    exceeds(&subject.admit(&anew).await, 2);
    // Others have their own room, and so have those whom nothing limits.
    subject.new_task(&own(1).user("other")).await;
    subject.new_task(&draft(json!({"n": 4}))).await;
    for lease in subject.lease_many(4, LONG).await {
        recorded(subject.complete(&lease, "1").await);
    }
    // Nothing of what was refused was recorded: it is new, and so is its key.
    subject.new_task(&over).await;
}

async fn duplicates_and_repeats_need_no_room(subject: Subject) {
    let first = draft(json!({"n": 1})).key("k").quota(1);
    let admission = first.admission();
    let Admitted::New(answer) = subject.store.admit(admission.clone()).await.unwrap() else {
        panic!("not new");
    };
    let id = answer.task.id;
    let again = subject.store.admit(admission).await.unwrap();
    assert!(matches!(&again, Admitted::New(answer) if answer.task.id == id));
    for duplicate in [
        first.clone(),
        draft(json!({"n": 1})).quota(1),
        draft(json!({"n": 1})).key("other").quota(1),
    ] {
        let admitted = subject.admit(&duplicate).await;
        let joins = matches!(&admitted, Admitted::Duplicate { answer, .. } if answer.task.id == id);
        assert!(joins, "{admitted:?}");
    }
    let reused = subject
        .admit(&draft(json!({"n": 2})).key("k").quota(1))
        .await;
    assert!(matches!(reused, Admitted::KeyReused { .. }), "{reused:?}");
    exceeds(&subject.admit(&draft(json!({"n": 2})).quota(1)).await, 1);
}

async fn no_race_gets_past_the_quota(subject: Subject) {
    let admit = |n: u32| {
        let one = draft(json!({"n": n})).quota(7);
        let one = if n.is_multiple_of(3) {
            one.tag("a", "b")
        } else {
            one
        };
        let store = subject.store.clone();
        async move { store.admit(one.admission()).await.unwrap() }
    };
    let all = join_all((0..60).map(admit)).await;
    let new = |one: &&Admitted| matches!(one, Admitted::New(_));
    assert_eq!(all.iter().filter(new).count(), 7);
    all.iter()
        .filter(|one| !new(one))
        .for_each(|one| exceeds(one, 7));
}

async fn a_batch_takes_what_room_there_is(subject: Subject) {
    subject.new_task(&draft(json!({"n": 0})).quota(4)).await;
    let mut batch: Vec<Draft> = (0..6).map(|n| draft(json!({"n": n})).quota(4)).collect();
    batch.insert(3, draft(json!({"n": 2})).quota(4));
    batch.insert(5, draft(json!({"n": 9})).user("other").quota(4));
    let admissions = batch.iter().map(Draft::admission).collect();
    let admitted = subject.store.admit_many(admissions).await;
    let word = |one: Result<Admitted, _>| match one.unwrap() {
        Admitted::New(_) => "new",
        Admitted::Duplicate { .. } => "duplicate",
        Admitted::QuotaExceeded { .. } => "over",
        other => panic!("{other:?}"),
    };
    let words: Vec<_> = admitted.into_iter().map(word).collect();
    assert_eq!(
        words,
        [
            "duplicate",
            "new",
            "new",
            "duplicate",
            "new",
            "new",
            "over",
            "over"
        ]
    );
}

async fn tasks_count_from_their_submission_to_their_end(subject: Subject) {
    let own = |n: u32| draft(json!({"n": n})).quota(2);
    let failing = subject.new_task(&own(1)).await;
    let lease = subject.lease(LONG).await;
    // It runs, and then waits for another try.
    subject.new_task(&own(2)).await;
    exceeds(&subject.admit(&own(3)).await, 2);
    recorded(subject.fail(&lease, Some(LONG)).await);
    exceeds(&subject.admit(&own(3)).await, 2);
    subject.store.cancel(&user(), &failing.id).await.unwrap();
    let later = own(3).with(|submission| {
        submission.start = justonce::domain::submission::Start::After(LONG);
    });
    subject.new_task(&later).await;
    exceeds(&subject.admit(&own(4)).await, 2);
    // Who runs a task again by hand may, and it counts.
    let redriven = subject.store.redrive(&user(), &failing.id).await.unwrap();
    assert!(matches!(redriven, Redriven::Done(_)), "{redriven:?}");
    exceeds(&subject.admit(&own(4).key("a")).await, 2);
    exceeds(&subject.admit(&draft(json!({"n": 4})).quota(3)).await, 3);
    subject.new_task(&draft(json!({"n": 4})).quota(4)).await;
}

async fn what_gives_way_makes_room(subject: Subject) {
    let newer = |text: &str| {
        let one = draft(json!({"doc": 1, "text": text})).quota(1);
        one.with(|submission| {
            submission.dedup.mode = Some(DedupMode::Replace);
            submission.dedup.by = Some(vec!["/doc".to_owned()]);
        })
    };
    let first = subject.new_task(&newer("a")).await;
    let second = subject.new_task(&newer("b")).await;
    let replaced = subject.task(&first.id).await;
    assert_eq!(replaced.superseded_by.as_ref(), Some(&second.id));
    exceeds(&subject.admit(&draft(json!({"n": 1})).quota(1)).await, 1);
}

async fn lease_delivery(subject: &Subject) -> Lease {
    let request = LeaseRequest {
        types: vec![Callback::TASK_TYPE.to_owned()],
        max: 1,
        holder: Holder::Inside,
        lease: HashMap::new(),
        bounds: HashMap::new(),
    };
    subject.store.lease(request).await.unwrap().remove(0)
}

async fn deliveries_are_nobodys_use(subject: Subject) {
    let told = draft(json!({"n": 1}))
        .callback("https://a.example/")
        .quota(1);
    subject.new_task(&told).await;
    let lease = subject.lease(LONG).await;
    recorded(subject.complete(&lease, "1").await);
    let second = subject.new_task(&draft(json!({"n": 2})).quota(1)).await;
    exceeds(&subject.admit(&draft(json!({"n": 3})).quota(1)).await, 1);
    // While it runs, when it has failed, when it is sent again, and when that has ended.
    let delivery = lease_delivery(&subject).await;
    subject.store.cancel(&user(), &second.id).await.unwrap();
    let third = subject.new_task(&draft(json!({"n": 3})).quota(1)).await;
    exceeds(&subject.admit(&draft(json!({"n": 4})).quota(1)).await, 1);
    recorded(subject.fail(&delivery, None).await);
    exceeds(&subject.admit(&draft(json!({"n": 4})).quota(1)).await, 1);
    subject
        .store
        .redrive(&user(), &delivery.task.id)
        .await
        .unwrap();
    subject.store.cancel(&user(), &third.id).await.unwrap();
    subject.new_task(&draft(json!({"n": 4})).quota(1)).await;
    let delivery = lease_delivery(&subject).await;
    recorded(
        subject
            .store
            .complete(held(&delivery), inline("1"))
            .await
            .unwrap(),
    );
    exceeds(&subject.admit(&draft(json!({"n": 5})).quota(1)).await, 1);
}

async fn a_window_has_so_many_requests(subject: Subject) {
    let other = UserId::parse("other").unwrap();
    for left in [2, 1, 0] {
        let spent = subject.store.spend_request(&user(), 3).await.unwrap();
        assert_eq!((spent.is_taken, spent.left), (true, left));
        assert!(
            (1..=60).contains(&spent.resets_in.as_secs().max(1)),
            "{spent:?}"
        );
    }
    for _ in 0..2 {
        let spent = subject.store.spend_request(&user(), 3).await.unwrap();
        assert_eq!((spent.is_taken, spent.left), (false, 0));
    }
    let spent = subject.store.spend_request(&other, 3).await.unwrap();
    assert_eq!((spent.is_taken, spent.left), (true, 2));
    // With room for more, what is used is used.
    let spent = subject.store.spend_request(&user(), 5).await.unwrap();
    assert_eq!((spent.is_taken, spent.left), (true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_quotas_and_windows() {
    let prefix = crate::support::redis::prefix();
    let (one, other) = (redis_under(&prefix).await, redis_under(&prefix).await);
    let admit = |n: u32| {
        let store = if n.is_multiple_of(2) {
            &one.store
        } else {
            &other.store
        };
        let admission = draft(json!({"n": n})).quota(5).admission();
        async move { store.admit(admission).await.unwrap() }
    };
    let all = join_all((0..40).map(admit)).await;
    let new = |one: &&Admitted| matches!(one, Admitted::New(_));
    assert_eq!(all.iter().filter(new).count(), 5);
    let spend = |n: u32| {
        let store = if n.is_multiple_of(2) {
            &one.store
        } else {
            &other.store
        };
        async move { store.spend_request(&user(), 9).await.unwrap() }
    };
    let all = join_all((0..40).map(spend)).await;
    assert_eq!(all.iter().filter(|spent| spent.is_taken).count(), 9);
    one.home.expect_sound().await;
}
