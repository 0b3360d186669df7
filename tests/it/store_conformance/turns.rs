//! Who is next: users and types take turns, and bounds make only those wait whom they are for.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use justonce::domain::principal::UserId;
use justonce::domain::task::{Priority, State, Task, TaskId};
use justonce::domain::task_type::TaskType;
use justonce::domain::turns::{Bounds, Rate};
use justonce::store::{Admitted, Cancelled, Found, Held, Holder, Lease, LeaseRequest};
use serde_json::json;

use super::promises;
use crate::support::deadline::until;
use crate::support::store::{
    Draft, LONG, SHORT, Subject, draft, draft_of, held, inline, outside, plain_type, recorded,
};

promises!(
    nobody_waits_behind_the_backlog_of_another,
    a_user_who_comes_anew_stands_behind_one_round,
    users_of_all_partitions_are_treated_alike,
    a_type_with_a_flood_leaves_others_their_turn,
    a_task_that_has_waited_long_enough_goes_before_a_more_important_one,
    a_duplicate_makes_a_task_more_important,
    a_user_has_no_more_attempts_than_its_bound,
    a_user_at_the_bound_costs_others_nothing,
    a_cancelled_attempt_counts_until_it_has_stopped,
    of_one_concurrency_key_one_task_runs,
    the_best_of_those_that_wait_for_a_key_is_next,
    a_key_is_free_however_its_holder_ends,
    a_task_that_waits_for_its_key_can_be_cancelled,
    a_cancelled_task_in_line_makes_room_for_its_key,
    a_key_counts_within_its_user_and_type,
    a_flood_of_one_key_keeps_nobody_waiting,
    many_workers_hold_each_key_once,
    a_user_starts_no_more_attempts_than_its_rate,
    a_type_starts_no_more_attempts_than_its_rate,
    what_waits_for_a_rate_is_looked_at_when_it_may_start,
    who_is_passed_over_is_looked_at_within_a_minute,
);

/// What tests with bounds lease by.
fn request(max: usize, bounds: Bounds) -> LeaseRequest {
    LeaseRequest {
        types: vec!["plain".to_owned()],
        max,
        holder: Holder::Inside,
        lease: HashMap::from([("plain".to_owned(), LONG)]),
        bounds: HashMap::from([("plain".to_owned(), bounds)]),
    }
}

fn per_user(attempts: u32) -> Bounds {
    Bounds {
        per_user: Some(attempts),
        ..Bounds::default()
    }
}

fn rate(attempts: u32, span: Duration) -> Option<Rate> {
    Some(Rate { attempts, span })
}

/// A type whose tasks with the same `k` run one after the other.
fn keyed() -> TaskType {
    TaskType {
        concurrency_key: Some("/k".to_owned()),
        ..plain_type()
    }
}

fn keyed_draft(n: u32, key: &str) -> Draft {
    draft_of(keyed(), json!({"n": n, "k": key}))
}

async fn lease(subject: &Subject, max: usize, bounds: Bounds) -> Vec<Lease> {
    subject.store.lease(request(max, bounds)).await.unwrap()
}

/// As soon as it is known here that there is something to lease.
async fn lease_soon(subject: &Subject, max: usize, bounds: Bounds) -> Vec<Lease> {
    soon(subject, request(max, bounds)).await
}

async fn soon(subject: &Subject, request: LeaseRequest) -> Vec<Lease> {
    until("something to lease", async || {
        let leases = subject.store.lease(request.clone()).await.unwrap();
        Some(leases).filter(|leases| !leases.is_empty())
    })
    .await
}

async fn flood(subject: &Subject, user: &str, tasks: u32) {
    for from in (0..tasks).step_by(500) {
        let some = (from..tasks.min(from + 500))
            .map(|n| draft(json!({"n": n, "of": user})).user(user).admission());
        for admitted in subject.store.admit_many(some.collect()).await {
            assert!(matches!(admitted, Ok(Admitted::New(_))), "{admitted:?}");
        }
    }
}

fn users(leases: &[Lease]) -> Vec<&str> {
    leases
        .iter()
        .map(|lease| lease.task.user.as_str())
        .collect()
}

fn ids(leases: &[Lease]) -> Vec<TaskId> {
    leases.iter().map(|lease| lease.task.id.clone()).collect()
}

fn task_of(task: &Task, user: &str) -> (UserId, TaskId) {
    (UserId::parse(user).unwrap(), task.id.clone())
}

async fn nobody_waits_behind_the_backlog_of_another(subject: Subject) {
    flood(&subject, "flood", 2_000).await;
    let others: Vec<String> = (0..5).map(|n| format!("other{n}")).collect();
    for user in &others {
        flood(&subject, user, 3).await;
    }
    // Six users and one worker: each round has a turn of each of them.
    for _ in 0..3 {
        let mut round = Vec::new();
        for _ in 0..6 {
            round.extend(lease(&subject, 1, Bounds::default()).await);
        }
        let round: BTreeSet<_> = users(&round).into_iter().map(str::to_owned).collect();
        assert_eq!(round.len(), 6, "{round:?}");
    }
    // All that is left is of one user.
    let rest = lease(&subject, 50, Bounds::default()).await;
    assert_eq!(users(&rest), vec!["flood"; 50]);
    let stats = subject.store.stats(None).await.unwrap();
    assert_eq!(stats.counts.of(State::Queued), 2_000 - 53);
    assert!(stats.queue_oldest_seconds > 0.0);
}

async fn a_user_who_comes_anew_stands_behind_one_round(subject: Subject) {
    for user in ["a", "b", "c"] {
        flood(&subject, user, 20).await;
    }
    let before = lease(&subject, 7, Bounds::default()).await;
    assert_eq!(before.len(), 7);
    flood(&subject, "new", 20).await;
    let round = lease(&subject, 4, Bounds::default()).await;
    assert!(users(&round).contains(&"new"), "{:?}", users(&round));
    // Coming again and again brings no more than one's turn.
    for n in 0..4 {
        let more = draft(json!({"again": n})).user("again");
        subject.new_task(&more).await;
        let round = lease(&subject, 5, Bounds::default()).await;
        let turns = users(&round);
        for user in ["a", "b", "c", "new", "again"] {
            let count = turns.iter().filter(|turn| **turn == user).count();
            assert_eq!(count, 1, "{user}: {turns:?}");
        }
    }
}

/// Where users are spread over partitions.
async fn users_of_all_partitions_are_treated_alike(subject: Subject) {
    let names: Vec<String> = (0..40).map(|n| format!("user{n}")).collect();
    for user in &names {
        flood(&subject, user, 20).await;
    }
    let mut turns: HashMap<String, usize> = HashMap::new();
    // Until something is known of each partition.
    lease(&subject, 80, Bounds::default()).await;
    for max in [1, 7, 40, 32].into_iter().cycle().take(20) {
        for lease in lease(&subject, max, Bounds::default()).await {
            *turns.entry(lease.task.user.to_string()).or_default() += 1;
        }
    }
    let count = |user: &String| turns.get(user).copied().unwrap_or(0);
    // Ten turns each; where partitions count alike, whoever is alone in one would have had all twenty.
    let (least, most) = (
        names.iter().map(count).min().unwrap(),
        names.iter().map(count).max().unwrap(),
    );
    assert!(
        least > 0 && most - least <= 5,
        "{least} to {most}: {turns:?}"
    );
}

async fn a_type_with_a_flood_leaves_others_their_turn(subject: Subject) {
    for n in 0..60 {
        let user = format!("user{n}");
        subject.new_task(&draft(json!({"n": n})).user(&user)).await;
    }
    flood(&subject, "one", 300).await;
    let mut other = plain_type();
    other.name = "other".to_owned();
    for n in 0..4 {
        subject
            .new_task(&draft_of(other.clone(), json!({"n": n})).user("one"))
            .await;
    }
    let mut request = request(1, Bounds::default());
    request.types.push("other".to_owned());
    let mut of_other = 0;
    for _ in 0..80 {
        let leases = subject.store.lease(request.clone()).await.unwrap();
        assert_eq!(leases.len(), 1);
        of_other += usize::from(leases[0].task.task_type == "other");
    }
    assert_eq!(of_other, 4, "the other type waited behind the flood");
}

async fn a_task_that_has_waited_long_enough_goes_before_a_more_important_one(subject: Subject) {
    let with = |n: u32, priority: u64, ageing: Duration| {
        let made = TaskType {
            ageing,
            ..plain_type()
        };
        draft_of(made, json!({"n": n})).with(|s| s.priority = Priority::new(priority))
    };
    // A level is worth a day: importance decides.
    let day = Duration::from_secs(86_400);
    let late = subject.new_task(&with(1, 9, day)).await.id;
    let soon = subject.new_task(&with(2, 0, day)).await.id;
    assert_eq!(
        ids(&lease(&subject, 9, Bounds::default()).await),
        [soon, late]
    );
    // A level is worth a millisecond: the first has waited for more than nine of them when the second comes.
    let ms = Duration::from_millis(1);
    let late = subject.new_task(&with(3, 9, ms)).await;
    until("nine levels to pass", async || {
        let other = subject.new_task(&with(4, 0, ms).user("clock")).await;
        let waited = other.created_at.since(late.created_at);
        let user = UserId::parse("clock").unwrap();
        subject.store.cancel(&user, &other.id).await.unwrap();
        subject.store.forget(&user, &other.id).await.unwrap();
        (waited > 10 * ms).then_some(())
    })
    .await;
    let soon = subject.new_task(&with(5, 0, ms)).await.id;
    assert_eq!(
        ids(&lease(&subject, 9, Bounds::default()).await),
        [late.id, soon]
    );
}

async fn a_duplicate_makes_a_task_more_important(subject: Subject) {
    let first = keyed_draft(1, "a");
    let second = keyed_draft(2, "a");
    let third = keyed_draft(3, "a");
    let [one, two, three] = [
        subject.new_task(&first).await.id,
        subject.new_task(&second).await.id,
        subject.new_task(&third).await.id,
    ];
    let more_important = |draft: &Draft| draft.clone().with(|s| s.priority = Priority::new(0));
    // In line, and while it waits for its key.
    subject.admit(&more_important(&second)).await;
    let running = lease(&subject, 9, Bounds::default()).await;
    assert_eq!(ids(&running), [two]);
    subject.admit(&more_important(&third)).await;
    recorded(subject.complete(&running[0], "1").await);
    let running = lease_soon(&subject, 9, Bounds::default()).await;
    assert_eq!(ids(&running), [three]);
    recorded(subject.complete(&running[0], "1").await);
    assert_eq!(
        ids(&lease_soon(&subject, 9, Bounds::default()).await),
        [one]
    );
}

async fn a_user_has_no_more_attempts_than_its_bound(subject: Subject) {
    flood(&subject, "user123", 60).await;
    let workers = (0..8).map(|n| {
        let subject = &subject;
        async move {
            let mut mine = Vec::new();
            for _ in 0..4 {
                let mut request = request(3, per_user(5));
                if n % 2 == 0 {
                    request.holder = outside("far", None, 1).holder;
                }
                mine.extend(subject.store.lease(request).await.unwrap());
            }
            mine
        }
    });
    let mut running = futures_util::future::join_all(workers).await.concat();
    assert_eq!(running.len(), 5);
    // Each end makes room for one: success, retry, failure, release.
    for how in 0..4 {
        let ended = running.remove(0);
        match how {
            0 => drop(recorded(subject.complete(&ended, "1").await)),
            1 => drop(recorded(subject.fail(&ended, Some(LONG)).await)),
            2 => drop(recorded(subject.fail(&ended, None).await)),
            _ => recorded(subject.store.release(held(&ended)).await.unwrap()),
        }
        let next = lease_soon(&subject, 9, per_user(5)).await;
        assert_eq!(next.len(), 1, "after end {how}");
        running.extend(next);
    }
    // Whoever knows of no bound is not bound.
    assert_eq!(
        lease(&subject, 2, Bounds::default()).await.len(),
        0,
        "passed over"
    );
    recorded(subject.complete(&running[0], "1").await);
    assert_eq!(lease_soon(&subject, 2, Bounds::default()).await.len(), 2);
}

async fn a_user_at_the_bound_costs_others_nothing(subject: Subject) {
    flood(&subject, "greedy", 30).await;
    let first = lease(&subject, 9, per_user(2)).await;
    assert_eq!(users(&first), ["greedy"; 2]);
    flood(&subject, "modest", 3).await;
    let second = lease(&subject, 9, per_user(2)).await;
    assert_eq!(users(&second), ["modest"; 2]);
    assert!(lease(&subject, 9, per_user(2)).await.is_empty());
    recorded(subject.complete(&second[0], "1").await);
    let third = lease_soon(&subject, 9, per_user(2)).await;
    assert_eq!(users(&third), ["modest"]);
    // It comes back at once.
    let complete = subject.store.complete(
        Held {
            user: UserId::parse("greedy").unwrap(),
            ..held(&first[0])
        },
        inline("1"),
    );
    recorded(complete.await.unwrap());
    assert_eq!(
        users(&lease_soon(&subject, 9, per_user(2)).await),
        ["greedy"]
    );
}

async fn a_cancelled_attempt_counts_until_it_has_stopped(subject: Subject) {
    flood(&subject, "user123", 3).await;
    let running = lease(&subject, 9, per_user(1)).await;
    let (user, id) = task_of(&running[0].task, "user123");
    let cancelled = subject.store.cancel(&user, &id).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done { stopping: true, .. }));
    assert!(lease(&subject, 9, per_user(1)).await.is_empty());
    recorded(subject.fail(&running[0], None).await);
    // The next holder vanishes after it was cancelled.
    let mut short = request(9, per_user(1));
    short.lease.insert("plain".to_owned(), SHORT);
    let running = soon(&subject, short).await;
    assert_eq!(running.len(), 1);
    let (user, id) = task_of(&running[0].task, "user123");
    subject.store.cancel(&user, &id).await.unwrap();
    until("the lease to end", async || {
        subject.rescue().await;
        lease(&subject, 9, per_user(1)).await.pop()
    })
    .await;
}

async fn of_one_concurrency_key_one_task_runs(subject: Subject) {
    let mut made = Vec::new();
    for n in 0..3 {
        made.push(subject.new_task(&keyed_draft(n, "a")).await.id);
    }
    let other = subject.new_task(&keyed_draft(9, "b")).await.id;
    let free = subject
        .new_task(&draft_of(keyed(), json!({"n": 1})))
        .await
        .id;
    let free_too = subject
        .new_task(&draft_of(keyed(), json!({"n": 2})))
        .await
        .id;
    let running = lease(&subject, 9, Bounds::default()).await;
    assert_eq!(ids(&running), [made[0].clone(), other, free, free_too]);
    // For everyone outside they are queued.
    for id in &made[1..] {
        assert_eq!(subject.task(id).await.state, State::Queued);
    }
    recorded(subject.complete(&running[0], "1").await);
    let next = lease_soon(&subject, 9, Bounds::default()).await;
    assert_eq!(ids(&next), made[1..2]);
    recorded(subject.complete(&next[0], "1").await);
    assert_eq!(
        ids(&lease_soon(&subject, 9, Bounds::default()).await),
        made[2..]
    );
}

async fn the_best_of_those_that_wait_for_a_key_is_next(subject: Subject) {
    let important =
        |n, priority| keyed_draft(n, "a").with(|s| s.priority = Priority::new(priority));
    subject.new_task(&important(0, 4)).await;
    let running = lease(&subject, 9, Bounds::default()).await;
    let late = subject.new_task(&important(1, 9)).await.id;
    let soon = subject.new_task(&important(2, 0)).await.id;
    assert!(lease(&subject, 9, Bounds::default()).await.is_empty());
    let middle = subject.new_task(&important(3, 4)).await.id;
    assert!(lease(&subject, 9, Bounds::default()).await.is_empty());
    let mut holder = running.into_iter().next().unwrap();
    for expected in [soon, middle, late] {
        recorded(subject.complete(&holder, "1").await);
        let next = lease_soon(&subject, 9, Bounds::default()).await;
        assert_eq!(ids(&next), [expected]);
        holder = next.into_iter().next().unwrap();
    }
}

async fn a_key_is_free_however_its_holder_ends(subject: Subject) {
    for n in 0..6 {
        subject.new_task(&keyed_draft(n, "a")).await;
    }
    let only = async || {
        let mut leases = lease_soon(&subject, 9, Bounds::default()).await;
        assert_eq!(leases.len(), 1, "{:?}", ids(&leases));
        leases.remove(0)
    };
    let first = only().await;
    recorded(subject.fail(&first, None).await);
    let retried = only().await;
    recorded(subject.fail(&retried, Some(LONG)).await);
    let released = only().await;
    recorded(subject.store.release(held(&released)).await.unwrap());
    let again = only().await;
    assert_eq!(again.task.id, released.task.id);
    let (user, id) = task_of(&again.task, "user123");
    subject.store.cancel(&user, &id).await.unwrap();
    // Its attempt has not stopped yet.
    assert!(lease(&subject, 9, Bounds::default()).await.is_empty());
    recorded(subject.fail(&again, None).await);
    let mut short = request(9, Bounds::default());
    short.lease.insert("plain".to_owned(), SHORT);
    let silent = soon(&subject, short).await.remove(0);
    let back = until("the lease to end", async || {
        subject.rescue().await;
        lease(&subject, 9, Bounds::default()).await.pop()
    })
    .await;
    assert_eq!(back.task.id, silent.task.id);
    recorded(subject.complete(&back, "1").await);
    only().await;
}

async fn a_task_that_waits_for_its_key_can_be_cancelled(subject: Subject) {
    subject.new_task(&keyed_draft(0, "a")).await;
    let waiting = subject.new_task(&keyed_draft(1, "a")).await;
    let last = subject.new_task(&keyed_draft(2, "a")).await.id;
    let running = lease(&subject, 9, Bounds::default()).await;
    let (user, id) = task_of(&waiting, "user123");
    let cancelled = subject.store.cancel(&user, &id).await.unwrap();
    assert!(matches!(
        cancelled,
        Cancelled::Done {
            stopping: false,
            ..
        }
    ));
    recorded(subject.complete(&running[0], "1").await);
    let next = lease_soon(&subject, 9, Bounds::default()).await;
    assert_eq!(ids(&next), [last]);
    recorded(subject.complete(&next[0], "1").await);
    // A redrive brings it back.
    subject.store.redrive(&user, &id).await.unwrap();
    assert_eq!(ids(&lease(&subject, 9, Bounds::default()).await), [id]);
}

async fn a_cancelled_task_in_line_makes_room_for_its_key(subject: Subject) {
    for n in 0..3 {
        subject.new_task(&keyed_draft(n, "a")).await;
    }
    let running = lease(&subject, 9, Bounds::default()).await;
    recorded(subject.complete(&running[0], "1").await);
    // One of the two others is in line now, and the other one may still wait.
    let page = subject
        .store
        .list(
            &UserId::parse("user123").unwrap(),
            justonce::store::ListFilter {
                state: Some(State::Queued),
                limit: 9,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let (last, first) = (&page.tasks[0], &page.tasks[1]);
    let (user, id) = task_of(first, "user123");
    subject.store.cancel(&user, &id).await.unwrap();
    assert_eq!(
        ids(&lease_soon(&subject, 9, Bounds::default()).await),
        vec![last.id.clone()]
    );
}

async fn a_key_counts_within_its_user_and_type(subject: Subject) {
    let mut other = keyed();
    other.name = "other".to_owned();
    subject.new_task(&keyed_draft(1, "a")).await;
    subject.new_task(&keyed_draft(1, "a").user("another")).await;
    subject.new_task(&draft_of(other, json!({"k": "a"}))).await;
    let mut request = request(9, Bounds::default());
    request.types.push("other".to_owned());
    assert_eq!(subject.store.lease(request).await.unwrap().len(), 3);
}

async fn a_flood_of_one_key_keeps_nobody_waiting(subject: Subject) {
    let some = (0..900).map(|n| keyed_draft(n, "a").admission());
    for admitted in subject.store.admit_many(some.collect()).await {
        assert!(matches!(admitted, Ok(Admitted::New(_))), "{admitted:?}");
    }
    let free = subject.new_task(&keyed_draft(1, "b")).await.id;
    let other = subject.new_task(&draft(json!({})).user("another")).await.id;
    let mut found = BTreeSet::new();
    // A step looks at a part of them; there is always a next one.
    until("all that can run", async || {
        found.extend(ids(&lease(&subject, 9, Bounds::default()).await));
        (found.len() == 3).then_some(())
    })
    .await;
    assert!(found.contains(&free) && found.contains(&other));
    let stats = subject.store.stats(None).await.unwrap();
    assert_eq!(stats.counts.of(State::Queued), 899);
}

async fn many_workers_hold_each_key_once(subject: Subject) {
    const KEYS: u32 = 4;
    const EACH: u32 = 12;
    for n in 0..KEYS * EACH {
        let key = format!("k{}", n % KEYS);
        subject.new_task(&keyed_draft(n, &key)).await;
    }
    let running = std::sync::Mutex::new(BTreeSet::new());
    let done = std::sync::atomic::AtomicU32::new(0);
    let workers = (0..6).map(|_| async {
        while done.load(std::sync::atomic::Ordering::SeqCst) < KEYS * EACH {
            let leases = lease(&subject, 2, Bounds::default()).await;
            if leases.is_empty() {
                tokio::task::yield_now().await;
            }
            for one in &leases {
                let params: serde_json::Value =
                    serde_json::from_str(one.task.params.get()).unwrap();
                let key = params["k"].as_str().unwrap().to_owned();
                let is_first = running.lock().unwrap().insert(key.clone());
                assert!(is_first, "{key} runs twice");
            }
            for one in &leases {
                let params: serde_json::Value =
                    serde_json::from_str(one.task.params.get()).unwrap();
                running
                    .lock()
                    .unwrap()
                    .remove(params["k"].as_str().unwrap());
                recorded(subject.complete(one, "1").await);
                done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    let all = futures_util::future::join_all(workers);
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("some task waits for ever");
}

async fn a_user_starts_no_more_attempts_than_its_rate(subject: Subject) {
    let bounds = Bounds {
        rate_per_user: rate(3, LONG),
        ..Bounds::default()
    };
    flood(&subject, "user123", 20).await;
    flood(&subject, "another", 2).await;
    let started = lease(&subject, 9, bounds).await;
    let count = |user| users(&started).iter().filter(|one| **one == user).count();
    assert_eq!((count("user123"), count("another")), (3, 2));
    // Starts count, not what runs.
    for one in started
        .iter()
        .filter(|one| one.task.user.as_str() == "user123")
    {
        recorded(subject.complete(one, "1").await);
    }
    assert!(lease(&subject, 9, bounds).await.is_empty());
    flood(&subject, "third", 1).await;
    assert_eq!(users(&lease(&subject, 9, bounds).await), ["third"]);
    let waiting = subject.store.stats(None).await.unwrap();
    assert_eq!(waiting.counts.of(State::Queued), 17);
    assert!(matches!(
        subject
            .store
            .get(&UserId::parse("third").unwrap(), &started[0].task.id)
            .await
            .unwrap(),
        Found::Missing(_)
    ));
}

async fn a_type_starts_no_more_attempts_than_its_rate(subject: Subject) {
    let bounds = Bounds {
        rate: rate(7, LONG),
        ..Bounds::default()
    };
    for n in 0..20 {
        let user = format!("user{n}");
        subject.new_task(&draft(json!({"n": n})).user(&user)).await;
    }
    let workers = (0..5).map(|_| lease(&subject, 3, bounds));
    let mut started = futures_util::future::join_all(workers).await.concat();
    // Permits that one call holds back are there for the next.
    for _ in 0..3 {
        started.extend(lease(&subject, 9, bounds).await);
    }
    assert_eq!(started.len(), 7);
    let mut other = plain_type();
    other.name = "other".to_owned();
    subject.new_task(&draft_of(other, json!({}))).await;
    let mut request = request(9, bounds);
    request.types.push("other".to_owned());
    assert_eq!(subject.store.lease(request).await.unwrap().len(), 1);
}

async fn what_waits_for_a_rate_is_looked_at_when_it_may_start(subject: Subject) {
    let span = Duration::from_millis(300);
    for (n, bounds) in [
        Bounds {
            rate_per_user: rate(2, span),
            ..Bounds::default()
        },
        Bounds {
            rate: rate(2, span),
            ..Bounds::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("user{n}");
        flood(&subject, &user, 6).await;
        let began = Instant::now();
        let mut starts: Vec<i64> = Vec::new();
        until("all to start", async || {
            subject.rescue().await;
            let started = lease(&subject, 9, bounds).await;
            assert!(started.len() <= 2, "more than the rate allows");
            starts.extend(
                started
                    .iter()
                    .map(|one| one.task.started_at.unwrap().as_ms()),
            );
            (starts.len() == 6).then_some(())
        })
        .await;
        // Each two wait for the two before them; a clock in milliseconds may cut one off.
        assert!(began.elapsed() >= 2 * span - Duration::from_millis(2));
        if bounds.rate.is_some() {
            // A permit may be taken a moment before what it is for.
            continue;
        }
        starts.sort_unstable();
        for (earlier, later) in starts.iter().zip(&starts[2..]) {
            assert!(later - earlier >= 300, "{starts:?}");
        }
    }
}

/// The bound may be another one by then.
async fn who_is_passed_over_is_looked_at_within_a_minute(subject: Subject) {
    let by_rate = Bounds {
        rate_per_user: rate(1, LONG),
        ..Bounds::default()
    };
    for (user, bounds) in [("user123", by_rate), ("another", per_user(1))] {
        flood(&subject, user, 3).await;
        let started = lease(&subject, 9, bounds).await;
        assert_eq!(users(&started), [user]);
        assert!(lease(&subject, 9, bounds).await.is_empty());
        let started_at = started[0].task.started_at.unwrap();
        let latest = started_at.plus(Duration::from_secs(90));
        until("a time to look again", async || {
            let next = subject.rescue().await.next_due_at?;
            (started_at < next && next <= latest).then_some(())
        })
        .await;
    }
}
