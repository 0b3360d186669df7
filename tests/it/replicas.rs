//! Several stores over one Redis, as replicas have them, and what Redis must be set up as.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use justonce::domain::principal::UserId;
use justonce::domain::schedule::{Missed, Plan, Schedule, ScheduleName};
use justonce::domain::task::{State, TaskId};
use justonce::domain::timestamp::Timestamp;
use justonce::domain::worker::Worker;
use justonce::store::redis::{Options, RedisStore};
use justonce::store::{
    Admitted, Durability, Firing, Forgotten, Holder, LeaseRequest, NewSchedule, Store,
};
use serde_json::json;

use crate::support::deadline::{until, within};
use crate::support::redis::{RedisServer, durable, prefix, shared};
use crate::support::store::{
    LONG, SHORT, draft, held, inline, outside, own_worker, recorded, redis_at, redis_options,
    redis_under, user,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_one_replica_wakes_the_workers_and_watchers_of_another() {
    let prefix = prefix();
    let (one, other) = (redis_under(&prefix).await, redis_under(&prefix).await);
    // What was done before it began to listen is no news.
    within("the first news", other.store.signals().work()).await;
    assert!(other.lease_many(1, LONG).await.is_empty());
    let task = one.new_task(&draft(json!({"n": 1}))).await;
    let mut watch = one.store.watch(&task.id);
    let lease = until("the task of another replica", async || {
        other.lease_many(1, LONG).await.pop()
    })
    .await;
    assert_eq!(lease.task.id, task.id);
    within("the news of the lease", watch.changed()).await;
    recorded(other.complete(&lease, "1").await);
    until("the end", async || {
        (one.task(&task.id).await.state == State::Succeeded).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_replica_that_vanished_is_rescued_by_another() {
    let prefix = prefix();
    let (one, other) = (redis_under(&prefix).await, redis_under(&prefix).await);
    let task = one.new_task(&draft(json!({}))).await;
    let silent = one.lease(SHORT).await;
    drop(one);
    let lease = other.lease(LONG).await;
    assert_eq!((&lease.task.id, lease.task.attempt), (&task.id, 2));
    assert!(lease.token > silent.token);
    let late = other.store.complete(held(&silent), inline("1")).await;
    crate::support::store::lost(late.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_pauses_no_other_leases_within_a_second() {
    let prefix = prefix();
    let (one, other) = (redis_under(&prefix).await, redis_under(&prefix).await);
    one.store.pause("plain").await.unwrap();
    one.new_task(&draft(json!({"n": 1}))).await;
    let began = Instant::now();
    // Whatever was leased before the news came is handed back.
    until("the pause to be heard of", async || {
        let leases = other.lease_many(1, LONG).await;
        for lease in &leases {
            recorded(other.store.release(held(lease)).await.unwrap());
        }
        leases.is_empty().then_some(())
    })
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(other.store.paused().await.unwrap().len(), 1);
    other.store.resume("plain").await.unwrap();
    let began = Instant::now();
    let lease = until("the task to go on", async || {
        one.lease_many(1, LONG).await.pop()
    })
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    recorded(one.complete(&lease, "1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_all_replicas_are_told_by_each() {
    let prefix = prefix();
    let (one, other) = (redis_under(&prefix).await, redis_under(&prefix).await);
    let busy = Worker {
        name: "busy".to_owned(),
        running: 2,
        tasks: vec![TaskId::random(&user())],
        ..own_worker()
    };
    one.store.muster(busy.clone()).await.unwrap();
    one.new_task(&draft(json!({}))).await;
    let leases = other.store.lease(outside("far", None, 1)).await.unwrap();
    assert_eq!(leases.len(), 1);
    let told = other.store.workers(own_worker()).await.unwrap();
    let names: Vec<_> = told.iter().map(|worker| worker.name.as_str()).collect();
    assert_eq!(names, ["busy", "own", "far"]);
    assert!(told[0].heard_at > busy.heard_at);
    let as_told = Worker {
        heard_at: busy.heard_at,
        ..told[0].clone()
    };
    assert_eq!(as_told, busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_the_same_on_every_replica() {
    let prefix = prefix();
    let (one, other) = (redis_under(&prefix).await, redis_under(&prefix).await);
    one.succeeded(&draft(json!({"n": 1})).key("k")).await;
    other.admit(&draft(json!({"n": 1})).key("k")).await;
    other.store.stats(Some(&user())).await.unwrap();
    let counted = one.store.stats(None).await.unwrap();
    assert_eq!(counted.windows.all.accepted, 1);
    assert_eq!(counted.windows.all.duplicates_by_key, 1);
    assert_eq!(counted.counts.of(State::Succeeded), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_forgets_no_other_answers_from_memory() {
    let prefix = prefix();
    let (one, other) = (redis_under(&prefix).await, redis_under(&prefix).await);
    for n in 0..5 {
        let work = draft(json!({"n": n}));
        let ended = one.succeeded(&work).await;
        let keyed = work.clone().key(&format!("k{n}"));
        // The second is answered from memory.
        for _ in 0..2 {
            for again in [&work, &keyed] {
                let Admitted::Duplicate { answer, .. } = other.admit(again).await else {
                    panic!("not a duplicate");
                };
                assert_eq!(answer.task.id, ended.id);
            }
        }
        let forgotten = one.store.forget(&user(), &ended.id).await.unwrap();
        assert!(matches!(forgotten, Forgotten::Done { .. }));
        let admitted = other.admit(&keyed).await;
        assert!(
            matches!(admitted, Admitted::KeyForgotten),
            "another replica answers what was forgotten: {admitted:?}"
        );
        let anew = other.new_task(&work).await;
        assert_ne!(anew.id, ended.id);
        let lease = other.lease(LONG).await;
        recorded(other.complete(&lease, "1").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_of_ended_tasks_cost_redis_nothing_for_a_moment() {
    let server = RedisServer::start(&[]);
    let subject = redis_at(&server.url()).await;
    let work = draft(json!({}));
    subject.succeeded(&work).await;
    subject.admit(&work).await;
    let before = commands(&server);
    for _ in 0..200 {
        let admitted = subject.admit(&work).await;
        assert!(matches!(admitted, Admitted::Duplicate { .. }));
    }
    let each = (commands(&server) - before) / 200;
    assert_eq!(each, 0, "commands for each duplicate");
    let counted = subject.store.stats(None).await.unwrap();
    assert_eq!(counted.windows.all.duplicates_by_fingerprint, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let subject = redis_under(&prefix()).await;
    subject.new_task(&draft(json!({"n": 1}))).await;
    command(shared(), "SCRIPT FLUSH");
    subject.new_task(&draft(json!({"n": 2}))).await;
    assert_eq!(subject.lease_many(9, LONG).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_drop_records_is_refused() {
    let server = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let refused = RedisStore::open(options(&server)).await.err().unwrap();
    assert!(refused.to_string().contains("noeviction"), "{refused}");
    command(&server, "CONFIG SET maxmemory-policy noeviction");
    let store = RedisStore::open(options(&server)).await.unwrap();
    store.ping().await.unwrap();
    command(&server, "CONFIG SET maxmemory-policy allkeys-lru");
    until("the change to be noticed", async || {
        store.ping().await.err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_durability_is_what_redis_is_set_up_for() {
    let fsynced = RedisStore::open(options(durable())).await.unwrap();
    assert_eq!(fsynced.durability(), Durability::Fsync);
    let plain = RedisStore::open(options(shared())).await.unwrap();
    assert_eq!(plain.durability(), Durability::Memory);
}

#[tokio::test]
async fn a_layout_of_another_release_is_refused() {
    let server = RedisServer::start(&[]);
    for (schema, said) in [
        ("1", "by an older release in another layout"),
        ("99", "by a newer release"),
    ] {
        let options = options(&server);
        let agreement = format!("{}:{{p00}}:agreement", options.prefix);
        server.command(&["HSET", &agreement, "schema", schema, "partitions", "16"]);
        let refused = RedisStore::open(options).await.err();
        let text = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(said), "{schema}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_replica_costs_little() {
    let server = RedisServer::start(&[]);
    let store = RedisStore::open(options(&server)).await.unwrap();
    let work = async || {
        let request = LeaseRequest {
            types: vec!["plain".to_owned()],
            max: 9,
            holder: Holder::Inside,
            lease: Default::default(),
            bounds: Default::default(),
        };
        store.lease(request).await.unwrap();
        store.rescue().await.unwrap();
        due(&store).await;
    };
    let each_second = async || {
        for _ in 0..3 {
            work().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let before = commands(&server);
        for _ in 0..4 {
            work().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        (commands(&server) - before) as f64 / 4.0
    };
    let nothing = each_second().await;
    assert!(nothing <= 20.0, "{nothing} commands a second");
    // Nor do schedules that rest, wherever they are.
    for n in 0..100 {
        let user = UserId::parse(&format!("user{n}")).unwrap();
        store.put_schedule(schedule(&user, FAR_AWAY)).await.unwrap();
    }
    let schedules = each_second().await;
    assert!(schedules <= 20.0, "{schedules} commands a second");
}

const FAR_AWAY: Timestamp = Timestamp::from_ms(4_000_000_000_000);

fn schedule(user: &UserId, next_fire_at: Timestamp) -> NewSchedule {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    NewSchedule {
        user: user.clone(),
        name: ScheduleName::parse("s").unwrap(),
        plan: Plan {
            cron: "0 0 1 1 *".into(),
            time_zone: "UTC".into(),
            task_type: "plain".into(),
            params: json!({}),
            callback_url: None,
            missed: Missed::RunOnce,
            paused: false,
        },
        revision: fastrand::u64(..Schedule::REVISION_MAX),
        next_fire_at: Some(next_fire_at),
        found_at: Timestamp::from_ms(since.as_millis().try_into().unwrap()),
    }
}

/// Names of users whose schedules are due, as a scheduler asks for them.
async fn due(store: &impl Store) -> Vec<UserId> {
    let types = vec!["plain".to_owned()];
    let due = store.due_schedules(types, 100).await.unwrap();
    due.schedules
        .into_iter()
        .map(|due| due.schedule.user)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_one_replica_are_due_on_another_whatever_news_it_gets() {
    let server = RedisServer::start(&[]);
    let options = options(&server);
    let one = RedisStore::open(options.clone()).await.unwrap();
    let other = RedisStore::open(options.clone()).await.unwrap();
    let user = UserId::parse("ann").unwrap();
    assert!(due(&other).await.is_empty());
    one.put_schedule(schedule(&user, FAR_AWAY)).await.unwrap();
    // News of a schedule that is due at once.
    let soon = schedule(&user, Timestamp::from_ms(1_000));
    let soon = NewSchedule {
        plan: Plan {
            cron: "0 1 1 1 *".into(),
            ..soon.plan
        },
        ..soon
    };
    one.put_schedule(soon).await.unwrap();
    until("the schedule of another replica", async || {
        (due(&other).await == [user.clone()]).then_some(())
    })
    .await;
    // Put off, and then due sooner: the replica that did not do it has no news of that.
    let record = async |store: &RedisStore, next, put_off| {
        let name = ScheduleName::parse("s").unwrap();
        let schedule = store.schedule(&user, &name).await.unwrap().unwrap();
        let firing = Firing {
            user: user.clone(),
            name: schedule.name,
            revision: schedule.revision,
            next_revision: schedule.revision + 1,
            fired: None,
            next_fire_at: Some(next),
            put_off,
        };
        assert!(store.record_firing(firing).await.unwrap());
    };
    record(&one, FAR_AWAY, Duration::ZERO).await;
    until("nothing to be due", async || {
        due(&other).await.is_empty().then_some(())
    })
    .await;
    record(&one, Timestamp::from_ms(1_000), Duration::ZERO).await;
    until("the schedule without news", async || {
        (due(&other).await == [user.clone()]).then_some(())
    })
    .await;
    // Whoever begins later knows it, too.
    let late = RedisStore::open(options).await.unwrap();
    assert_eq!(due(&late).await, [user]);
}

fn options(server: &RedisServer) -> Options {
    redis_options(&server.url())
}

/// All that the server has carried out, those of scripts included.
fn commands(server: &RedisServer) -> u64 {
    let info = command(server, "INFO stats");
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.unwrap().trim().parse().unwrap()
}

fn command(server: &RedisServer, words: &str) -> String {
    server.command(&words.split(' ').collect::<Vec<_>>())
}
