//! Schedules on record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use justonce::domain::principal::UserId;
use justonce::domain::schedule::{Missed, Plan, Refusal, Schedule, ScheduleName};
use justonce::domain::task::TaskId;
use justonce::domain::timestamp::Timestamp;
use justonce::store::{Fired, Firing, NewSchedule, PutSchedule};
use serde_json::json;

use super::promises;
use crate::support::store::{Subject, user};

promises!(
    a_schedule_is_kept_replaced_and_deleted,
    a_schedule_goes_on_from_where_it_stands_while_its_timing_stays,
    of_several_who_look_at_a_due_schedule_one_goes_on,
    schedules_are_due_by_their_types_soonest_first,
    a_user_has_so_many_schedules_and_no_more,
    what_a_type_did_not_take_is_told_until_a_firing_is_submitted,
    a_first_firing_is_found_by_the_clock_of_the_store,
);

const PAST: Timestamp = Timestamp::from_ms(1_700_000_000_000);
const FUTURE: Timestamp = Timestamp::from_ms(4_000_000_000_000);

fn name(text: &str) -> ScheduleName {
    ScheduleName::parse(text).unwrap()
}

fn new(text: &str, next_fire_at: Option<Timestamp>, revision: u64) -> NewSchedule {
    NewSchedule {
        user: user(),
        name: name(text),
        plan: Plan {
            cron: "0 0 * * *".into(),
            time_zone: "Europe/Berlin".into(),
            task_type: "plain".into(),
            params: json!({"a": [1.5, "ü", null], "big": 9_007_199_254_740_991_i64}),
            callback_url: None,
            missed: Missed::RunAll,
            paused: false,
        },
        revision,
        next_fire_at,
        found_at: now(),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_ms(since.as_millis().try_into().unwrap())
}

fn firing(schedule: &Schedule, next_fire_at: Option<Timestamp>) -> Firing {
    Firing {
        user: schedule.user.clone(),
        name: schedule.name.clone(),
        revision: schedule.revision,
        next_revision: schedule.revision + 1,
        fired: None,
        next_fire_at,
        put_off: Duration::ZERO,
    }
}

async fn replaced(subject: &Subject, new: NewSchedule) -> Schedule {
    match subject.store.put_schedule(new).await.unwrap() {
        PutSchedule::Replaced(schedule) => schedule,
        other => panic!("{other:?}"),
    }
}

async fn due(subject: &Subject, types: &[&str]) -> Vec<Schedule> {
    let types = types.iter().map(|&name| name.to_owned()).collect();
    let due = subject.store.due_schedules(types, 100).await.unwrap();
    due.schedules.into_iter().map(|due| due.schedule).collect()
}

async fn a_schedule_is_kept_replaced_and_deleted(subject: Subject) {
    let store = &subject.store;
    let first = new("nightly", Some(FUTURE), 1);
    assert_eq!(store.schedule(&user(), &first.name).await.unwrap(), None);
    let put = store.put_schedule(first.clone()).await.unwrap();
    let PutSchedule::Created(kept) = put else {
        panic!("{put:?}")
    };
    assert_eq!((&kept.plan, kept.revision), (&first.plan, 1));
    assert_eq!(
        (kept.next_fire_at, kept.last_fired_at),
        (Some(FUTURE), None)
    );
    assert_eq!(kept.created_at, kept.updated_at);
    let found = store.schedule(&user(), &first.name).await.unwrap();
    assert_eq!(found.as_ref(), Some(&kept));
    let again = replaced(&subject, new("nightly", Some(PAST), 2)).await;
    assert_eq!((again.revision, again.created_at), (2, kept.created_at));
    store.put_schedule(new("a", None, 3)).await.unwrap();
    let names = async |user: &UserId| {
        let all = store.schedules(user).await.unwrap();
        all.iter()
            .map(|one| one.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&user()).await, ["a", "nightly"]);
    let other = UserId::parse("other").unwrap();
    assert_eq!(names(&other).await, [""; 0]);
    assert!(!store.delete_schedule(&other, &first.name).await.unwrap());
    assert!(store.delete_schedule(&user(), &first.name).await.unwrap());
    assert!(!store.delete_schedule(&user(), &first.name).await.unwrap());
    assert_eq!(store.schedule(&user(), &first.name).await.unwrap(), None);
    assert!(
        !store
            .record_firing(firing(&again, Some(PAST)))
            .await
            .unwrap()
    );
    assert_eq!(names(&user()).await, ["a"]);
}

async fn a_schedule_goes_on_from_where_it_stands_while_its_timing_stays(subject: Subject) {
    let store = &subject.store;
    store.put_schedule(new("s", Some(PAST), 1)).await.unwrap();
    let mut same = new("s", Some(FUTURE), 2);
    same.plan.params = json!({"other": true});
    same.plan.task_type = "strict".into();
    let kept = replaced(&subject, same.clone()).await;
    assert_eq!((kept.next_fire_at, kept.revision), (Some(PAST), 2));
    assert_eq!(kept.plan, same.plan);
    assert!(due(&subject, &["plain"]).await.is_empty());
    assert_eq!(due(&subject, &["strict"]).await, [kept]);
    let mut paused = new("s", None, 3);
    paused.plan.paused = true;
    assert_eq!(replaced(&subject, paused).await.next_fire_at, None);
    assert!(due(&subject, &["plain", "strict"]).await.is_empty());
    let resumed = replaced(&subject, new("s", Some(FUTURE), 4)).await;
    assert_eq!(resumed.next_fire_at, Some(FUTURE));
    let mut moved = new("s", Some(PAST), 5);
    moved.plan.time_zone = "UTC".into();
    assert_eq!(replaced(&subject, moved).await.next_fire_at, Some(PAST));
}

async fn of_several_who_look_at_a_due_schedule_one_goes_on(subject: Subject) {
    let store = &subject.store;
    store.put_schedule(new("s", Some(PAST), 1)).await.unwrap();
    let [seen] = &due(&subject, &["plain"]).await[..] else {
        panic!("not due")
    };
    let put_off = Firing {
        put_off: Duration::from_secs(600),
        ..firing(seen, Some(PAST))
    };
    let claims = join_all((0..8).map(|n| {
        store.record_firing(Firing {
            next_revision: 100 + n,
            ..put_off.clone()
        })
    }))
    .await;
    assert_eq!(claims.iter().filter(|won| **won == Ok(true)).count(), 1);
    assert!(due(&subject, &["plain"]).await.is_empty(), "not put off");
    let mut held = store.schedule(&user(), &name("s")).await.unwrap().unwrap();
    assert!((100..108).contains(&held.revision), "{held:?}");
    assert_eq!(held.next_fire_at, Some(PAST));
    let task = TaskId::random(&user());
    let fired = Firing {
        fired: Some(Fired {
            at: PAST,
            outcome: Ok(Some(task.clone())),
        }),
        ..firing(&held, Some(PAST.plus(Duration::from_secs(1))))
    };
    assert!(store.record_firing(fired.clone()).await.unwrap());
    let other = Firing {
        next_revision: 7_777,
        ..fired
    };
    assert!(!store.record_firing(other).await.unwrap());
    let [next] = &due(&subject, &["plain"]).await[..] else {
        panic!("not due again")
    };
    assert_eq!(
        (next.last_fired_at, &next.last_task),
        (Some(PAST), &Some(task))
    );
    // The user's change goes before what was seen earlier.
    held = next.clone();
    replaced(&subject, new("s", Some(FUTURE), 77)).await;
    assert!(!store.record_firing(firing(&held, None)).await.unwrap());
    let last = store.schedule(&user(), &name("s")).await.unwrap().unwrap();
    assert!(store.record_firing(firing(&last, None)).await.unwrap());
    assert!(due(&subject, &["plain"]).await.is_empty());
    let over = store.schedule(&user(), &name("s")).await.unwrap().unwrap();
    assert_eq!((over.next_fire_at, over.last_fired_at), (None, Some(PAST)));
}

async fn schedules_are_due_by_their_types_soonest_first(subject: Subject) {
    let store = &subject.store;
    let later = PAST.plus(Duration::from_secs(60));
    for (text, task_type, at) in [
        ("late", "plain", later),
        ("early", "strict", PAST),
        ("never", "unknown", PAST),
        ("next", "plain", FUTURE),
        ("last", "strict", FUTURE.plus(Duration::from_secs(1))),
    ] {
        let mut new = new(text, Some(at), 1);
        new.plan.task_type = task_type.into();
        store.put_schedule(new).await.unwrap();
    }
    let types = || vec!["plain".to_owned(), "strict".to_owned()];
    let found = store.due_schedules(types(), 100).await.unwrap();
    let names = found.schedules.iter().map(|one| one.schedule.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["early", "late"]);
    let judged = found.schedules.iter().map(|one| one.now);
    assert!(judged.clone().all(|now| now > later && now < FUTURE));
    // There may be more.
    assert_eq!(found.next_due_in, Some(Duration::ZERO));
    let first = store.due_schedules(types(), 1).await.unwrap();
    assert_eq!(first.schedules.len(), 1);
    for one in &found.schedules {
        assert!(
            store
                .record_firing(firing(&one.schedule, None))
                .await
                .unwrap()
        );
    }
    let later = store.due_schedules(types(), 100).await.unwrap();
    assert!(later.schedules.is_empty(), "{later:?}");
    assert!(
        later.next_due_in > Some(Duration::from_secs(10)),
        "{later:?}"
    );
    let none = store.due_schedules(Vec::new(), 100).await.unwrap();
    assert!(none.schedules.is_empty(), "{none:?}");
}

async fn a_user_has_so_many_schedules_and_no_more(subject: Subject) {
    let store = &subject.store;
    let count = Schedule::PER_USER_MAX;
    let puts = (0..count).map(|n| store.put_schedule(new(&format!("s{n}"), None, n)));
    for put in join_all(puts).await {
        assert!(matches!(put.unwrap(), PutSchedule::Created(_)));
    }
    let over = store.put_schedule(new("over", None, 1)).await.unwrap();
    assert!(matches!(over, PutSchedule::Full), "{over:?}");
    replaced(&subject, new("s1", None, count)).await;
    assert_eq!(store.schedules(&user()).await.unwrap().len() as u64, count);
}

async fn what_a_type_did_not_take_is_told_until_a_firing_is_submitted(subject: Subject) {
    let store = &subject.store;
    let put = store.put_schedule(new("s", Some(PAST), 1)).await.unwrap();
    let PutSchedule::Created(mut last) = put else {
        panic!("{put:?}")
    };
    let mut go_on = async |outcome| {
        let fired = Firing {
            fired: Some(Fired { at: PAST, outcome }),
            ..firing(&last, Some(FUTURE))
        };
        assert!(store.record_firing(fired).await.unwrap());
        last = store.schedule(&user(), &name("s")).await.unwrap().unwrap();
        last.clone()
    };
    let task = TaskId::random(&user());
    let fired = go_on(Ok(Some(task.clone()))).await;
    assert_eq!(fired.last_refusal, None);
    let refused = go_on(Err("/params/ü: wrong".into())).await;
    assert_eq!(
        refused.last_refusal,
        Some(Refusal {
            at: PAST,
            detail: "/params/ü: wrong".into()
        })
    );
    assert_eq!(
        (refused.last_fired_at, refused.last_task),
        (Some(PAST), Some(task))
    );
    let again = go_on(Ok(None)).await;
    assert_eq!((again.last_refusal, again.last_task), (None, None));
    go_on(Err("wrong again".into())).await;
    let changed = replaced(&subject, new("s", Some(FUTURE), 99)).await;
    assert_eq!(changed.last_refusal, None);
}

async fn a_first_firing_is_found_by_the_clock_of_the_store(subject: Subject) {
    let store = &subject.store;
    for found_at in [PAST, FUTURE] {
        let wrong = NewSchedule {
            found_at,
            ..new("s", Some(FUTURE), 1)
        };
        let put = store.put_schedule(wrong).await.unwrap();
        let PutSchedule::AnotherTime(at) = put else {
            panic!("{put:?}")
        };
        assert!(at > PAST && at < FUTURE);
        let found = store.schedule(&user(), &name("s")).await.unwrap();
        assert_eq!(found, None);
    }
}
