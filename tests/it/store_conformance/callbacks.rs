//! Callbacks: every end of a task is told, in the step that records it, to each callback once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use justonce::domain::callback::{Callback, Delivery, End};
use justonce::domain::task::{State, Task, TaskId};
use justonce::store::{
    AdmissionAnswer, Admitted, Cancelled, Forgotten, Found, Holder, Lease, LeaseRequest,
    ListFilter, Redriven,
};
use serde_json::json;

use super::promises;
use crate::support::deadline::until;
use crate::support::store::{
    Draft, LONG, SHORT, Subject, draft, draft_of, held, inline, lost, memory_with, plain_type,
    recorded, redis_under, redis_with, user,
};

promises!(
    each_callback_is_told_of_a_success_once,
    failures_and_cancellations_are_told,
    attempts_that_are_used_up_by_lost_leases_are_told,
    what_is_no_end_is_not_told,
    a_redriven_task_tells_its_new_end_too,
    a_task_has_so_many_callbacks_and_no_more,
    a_callback_that_comes_after_the_end_is_told_at_once,
    a_cancelled_attempt_is_told_of_when_it_is_cancelled,
    deliveries_are_tasks_like_others,
    a_forgotten_task_has_no_callbacks,
);

const A: &str = "https://a.example/hook?x=\\%22&y=1";
const B: &str = "https://b.example/";

/// The deliveries of a task, with what they tell.
async fn deliveries(subject: &Subject, id: &TaskId) -> Vec<(Task, Delivery)> {
    let filter = ListFilter {
        tag: Some((Callback::TAG.to_owned(), Some(id.to_string()))),
        limit: 100,
        ..ListFilter::default()
    };
    let page = subject.store.list(&user(), filter).await.unwrap();
    let read = |task: Task| {
        let delivery: Delivery = serde_json::from_str(task.params.get()).unwrap();
        assert_eq!(delivery.task_id, id.as_str());
        (task, delivery)
    };
    page.tasks.into_iter().map(read).collect()
}

async fn told(subject: &Subject, id: &TaskId) -> BTreeMap<String, End> {
    let deliveries = deliveries(subject, id).await;
    let count = deliveries.len();
    let told: BTreeMap<_, _> = deliveries
        .into_iter()
        .map(|(_, delivery)| (delivery.url, delivery.end))
        .collect();
    assert_eq!(told.len(), count, "a callback is told twice");
    told
}

async fn lease_deliveries(subject: &Subject) -> Vec<Lease> {
    let request = LeaseRequest {
        types: vec![Callback::TASK_TYPE.to_owned()],
        max: 100,
        holder: Holder::Inside,
        lease: HashMap::new(),
        bounds: HashMap::new(),
    };
    subject.store.lease(request).await.unwrap()
}

async fn duplicate(subject: &Subject, draft: &Draft) -> AdmissionAnswer {
    match subject.admit(draft).await {
        Admitted::Duplicate { answer, .. } => answer,
        other => panic!("no duplicate: {other:?}"),
    }
}

async fn cancel(subject: &Subject, id: &TaskId) {
    let cancelled = subject.store.cancel(&user(), id).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done { .. }), "{cancelled:?}");
}

async fn each_callback_is_told_of_a_success_once(subject: Subject) {
    let task = subject
        .new_task(&draft(json!({})).key("one").callback(A))
        .await;
    // Repeats of the first submission, another that joins by its content, and one without.
    for again in [
        draft(json!({})).key("one").callback(A),
        draft(json!({})).key("two").callback(B),
        draft(json!({})).callback(A),
        draft(json!({})),
    ] {
        let answer = duplicate(&subject, &again).await;
        assert_eq!((&answer.task.id, answer.ignored.len()), (&task.id, 0));
    }
    assert!(deliveries(&subject, &task.id).await.is_empty());
    let lease = subject.lease(LONG).await;
    for _ in 0..2 {
        let done = recorded(subject.complete(&lease, "1").await);
        let told = told(&subject, &task.id).await;
        let urls: Vec<_> = told.keys().map(String::as_str).collect();
        assert_eq!(urls, [A, B]);
        for end in told.values() {
            assert_eq!(*end, End::of(&done).unwrap());
            assert_eq!((end.state, end.attempt), (State::Succeeded, 1));
        }
    }
    // Nothing was said of any to tasks without callbacks.
    let other = subject.succeeded(&draft(json!({"other": 1}))).await;
    assert!(deliveries(&subject, &other.id).await.is_empty());
}

async fn failures_and_cancellations_are_told(subject: Subject) {
    let failed = subject.failed(&draft(json!({"n": 1})).callback(A)).await;
    let end = &told(&subject, &failed.id).await[A];
    assert_eq!(end.state, State::Failed);
    assert_eq!(end.error, failed.error);
    assert_eq!(end.finished_at(), failed.finished_at.unwrap());
    let waiting = subject.new_task(&draft(json!({"n": 2})).callback(A)).await;
    for _ in 0..2 {
        cancel(&subject, &waiting.id).await;
        let end = &told(&subject, &waiting.id).await[A];
        assert_eq!((end.state, end.attempt), (State::Cancelled, 0));
        assert_eq!(end.started_at_ms, None);
    }
}

async fn attempts_that_are_used_up_by_lost_leases_are_told(subject: Subject) {
    let mut once = plain_type();
    once.retry.max_attempts = 1;
    let task = subject
        .new_task(&draft_of(once, json!({})).callback(A))
        .await;
    subject.lease(SHORT).await;
    until("the end", async || {
        subject.rescue().await;
        (subject.task(&task.id).await.state == State::Failed).then_some(())
    })
    .await;
    let end = &told(&subject, &task.id).await[A];
    assert_eq!(end.state, State::Failed);
    assert_eq!(end.error.as_ref().unwrap().code, "lease-lost");
}

async fn what_is_no_end_is_not_told(subject: Subject) {
    let task = subject.new_task(&draft(json!({})).callback(A)).await;
    let lease = subject.lease(LONG).await;
    recorded(subject.store.release(held(&lease)).await.unwrap());
    let lease = subject.lease(LONG).await;
    recorded(subject.fail(&lease, Some(Duration::from_millis(1))).await);
    let again = subject.lease(LONG).await;
    // A result under an old token is no end either.
    lost(subject.complete(&lease, "1").await);
    assert!(deliveries(&subject, &task.id).await.is_empty());
    recorded(subject.complete(&again, "1").await);
    assert_eq!(told(&subject, &task.id).await[A].attempt, 2);
}

async fn a_redriven_task_tells_its_new_end_too(subject: Subject) {
    let task = subject.failed(&draft(json!({})).callback(A)).await;
    for number in 2..=3 {
        let redriven = subject.store.redrive(&user(), &task.id).await.unwrap();
        assert!(matches!(redriven, Redriven::Done(_)), "{redriven:?}");
        let lease = subject.lease(LONG).await;
        match number {
            2 => recorded(subject.fail(&lease, None).await),
            _ => recorded(subject.complete(&lease, "1").await),
        };
        let all = deliveries(&subject, &task.id).await;
        let mut ends: Vec<_> = all
            .iter()
            .map(|(_, told)| (told.end.attempt, told.end.state))
            .collect();
        ends.sort_unstable_by_key(|(attempt, _)| *attempt);
        let mut expected = vec![
            (1, State::Failed),
            (2, State::Failed),
            (3, State::Succeeded),
        ];
        expected.truncate(number);
        assert_eq!(ends, expected);
        let ids: std::collections::BTreeSet<_> = all.iter().map(|(task, _)| &task.id).collect();
        assert_eq!(ids.len(), number, "two ends are one message");
    }
}

async fn a_task_has_so_many_callbacks_and_no_more(subject: Subject) {
    let url = |n: usize| format!("https://{n}.example/");
    let content = || draft(json!({}));
    let task = subject.new_task(&content().callback(&url(0))).await;
    for n in 1..20 {
        let answer = duplicate(&subject, &content().callback(&url(n))).await;
        let ignored: &[_] = match n {
            0..16 => &[],
            _ => &["/callback_url"],
        };
        assert_eq!(answer.ignored, ignored, "{n}");
    }
    // One of those that it has is none too many.
    let answer = duplicate(&subject, &content().callback(&url(15))).await;
    assert!(answer.ignored.is_empty());
    let lease = subject.lease(LONG).await;
    recorded(subject.complete(&lease, "1").await);
    assert_eq!(told(&subject, &task.id).await.len(), 16);
    let late = duplicate(&subject, &content().callback(&url(99))).await;
    assert_eq!(late.ignored, ["/callback_url"]);
    assert_eq!(told(&subject, &task.id).await.len(), 16);
}

async fn a_callback_that_comes_after_the_end_is_told_at_once(subject: Subject) {
    let content = || draft(json!({})).key("k");
    let done = subject.succeeded(&content()).await;
    // It may be remembered by now.
    duplicate(&subject, &content()).await;
    for url in [A, A, B, A] {
        let answer = duplicate(&subject, &content().callback(url)).await;
        assert!(answer.ignored.is_empty());
        assert_eq!(told(&subject, &done.id).await[url].state, State::Succeeded);
    }
    assert_eq!(told(&subject, &done.id).await.len(), 2);
    let failed = draft(json!({"fails": 1})).key("f");
    let task = subject.failed(&failed).await;
    duplicate(&subject, &failed.clone().callback(B)).await;
    assert_eq!(told(&subject, &task.id).await[B].state, State::Failed);
    // It is told of the next end, too.
    let redriven = subject.store.redrive(&user(), &task.id).await.unwrap();
    assert!(matches!(redriven, Redriven::Done(_)), "{redriven:?}");
    let lease = subject.lease(LONG).await;
    recorded(subject.complete(&lease, "1").await);
    assert_eq!(deliveries(&subject, &task.id).await.len(), 2);
}

async fn a_cancelled_attempt_is_told_of_when_it_is_cancelled(subject: Subject) {
    let task = subject.new_task(&draft(json!({})).callback(A)).await;
    let lease = subject.lease(LONG).await;
    cancel(&subject, &task.id).await;
    assert_eq!(told(&subject, &task.id).await[A].state, State::Cancelled);
    // Who comes while it has not stopped yet is told at once.
    duplicate(&subject, &draft(json!({})).callback(B)).await;
    assert_eq!(told(&subject, &task.id).await.len(), 2);
    lost(subject.complete(&lease, "1").await);
    assert_eq!(told(&subject, &task.id).await.len(), 2);
}

async fn deliveries_are_tasks_like_others(subject: Subject) {
    let accepted = async || {
        let stats = subject.store.stats(Some(&user())).await.unwrap();
        (stats.windows.all.accepted, stats.by_type)
    };
    let task = subject.succeeded(&draft(json!({})).callback(A)).await;
    let (count, by_type) = accepted().await;
    assert_eq!(count, 1, "nobody has submitted a delivery");
    assert_eq!(by_type[Callback::TASK_TYPE].of(State::Queued), 1);
    let (delivery, _) = deliveries(&subject, &task.id).await.remove(0);
    assert_eq!(delivery.task_type, Callback::TASK_TYPE);
    assert_eq!((delivery.state, delivery.max_attempts), (State::Queued, 4));
    assert_eq!(delivery.fingerprint, None);
    let mut leases = lease_deliveries(&subject).await;
    let lease = leases.pop().unwrap();
    assert!(leases.is_empty());
    assert_eq!(
        (&lease.task.id, &lease.idempotency_key),
        (&delivery.id, &None)
    );
    recorded(subject.fail(&lease, None).await);
    assert_eq!(subject.task(&delivery.id).await.state, State::Failed);
    // A dead letter is sent again by hand, as the same message.
    let redriven = subject.store.redrive(&user(), &delivery.id).await.unwrap();
    assert!(matches!(redriven, Redriven::Done(_)), "{redriven:?}");
    let lease = lease_deliveries(&subject).await.pop().unwrap();
    assert_eq!(lease.task.id, delivery.id);
    recorded(
        subject
            .store
            .complete(held(&lease), inline("1"))
            .await
            .unwrap(),
    );
    let filter = ListFilter {
        task_type: Some(Callback::TASK_TYPE.to_owned()),
        limit: 10,
        ..ListFilter::default()
    };
    let page = subject.store.list(&user(), filter).await.unwrap();
    assert_eq!(page.tasks.len(), 1);
    assert_eq!(page.tasks[0].state, State::Succeeded);
    assert!(deliveries(&subject, &delivery.id).await.is_empty());
}

async fn a_forgotten_task_has_no_callbacks(subject: Subject) {
    let task = subject.succeeded(&draft(json!({})).callback(A)).await;
    let (delivery, _) = deliveries(&subject, &task.id).await.remove(0);
    let forgotten = subject.store.forget(&user(), &task.id).await.unwrap();
    assert!(matches!(forgotten, Forgotten::Done { .. }), "{forgotten:?}");
    let gone = subject.store.get(&user(), &task.id).await.unwrap();
    assert!(matches!(gone, Found::Missing(_)));
    let lease = lease_deliveries(&subject).await.pop().unwrap();
    assert_eq!(lease.task.id, delivery.id);
    recorded(subject.fail(&lease, None).await);
    let forgotten = subject.store.forget(&user(), &delivery.id).await.unwrap();
    assert!(matches!(forgotten, Forgotten::Done { .. }), "{forgotten:?}");
}

#[tokio::test]
async fn a_full_queue_takes_deliveries() {
    takes_deliveries(memory_with(1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_in_redis_takes_deliveries() {
    let subject = redis_with(1).await;
    let home = subject.home.clone();
    takes_deliveries(subject).await;
    home.expect_sound().await;
}

async fn takes_deliveries(subject: Subject) {
    let task = subject.new_task(&draft(json!({})).callback(A)).await;
    duplicate(&subject, &draft(json!({})).callback(B)).await;
    let lease = subject.lease(LONG).await;
    recorded(subject.complete(&lease, "1").await);
    assert_eq!(told(&subject, &task.id).await.len(), 2);
    let more = subject.admit(&draft(json!({"n": 2}))).await;
    assert!(matches!(more, Admitted::QueueFull), "{more:?}");
}

/// A replica of an older release drops what it does not know of a record, and tells nobody of an end.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_replica_ends_is_told_by_a_newer_one() {
    let prefix = crate::support::redis::prefix();
    let subject = redis_under(&prefix).await;
    let task = subject.new_task(&draft(json!({})).callback(A)).await;
    let waiting = subject.new_task(&draft(json!({"n": 2})).callback(A)).await;
    let server = crate::support::redis::shared();
    // The last value is what older scripts do not read, and do not write.
    let forget = "local v = {cmsgpack.unpack(redis.call('GET', KEYS[1]))} \
        redis.call('SET', KEYS[1], cmsgpack.pack(unpack(v, 1, 38)))";
    for id in [&task.id, &waiting.id] {
        let key = server.command(&["--scan", "--pattern", &format!("{prefix}:*:task:{id}")]);
        server.command(&["EVAL", forget, "1", &key]);
    }
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, task.id);
    recorded(subject.complete(&lease, "1").await);
    // Whoever starts looks after it.
    let newer = redis_under(&prefix).await;
    until("the delivery", async || {
        let told = deliveries(&newer, &task.id).await;
        (told.len() == 1).then_some(())
    })
    .await;
    assert_eq!(told(&newer, &task.id).await[A].state, State::Succeeded);
    let lease = newer.lease(LONG).await;
    assert_eq!(lease.task.id, waiting.id);
    recorded(newer.complete(&lease, "1").await);
    assert_eq!(told(&newer, &waiting.id).await.len(), 1);
    let home = newer.home.clone();
    home.expect_sound().await;
}
