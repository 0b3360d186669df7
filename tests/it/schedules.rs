//! Schedules over HTTP, and what they submit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use justonce::domain::cadence::Cadence;
use justonce::domain::principal::UserId;
use justonce::domain::schedule::ScheduleName;
use justonce::domain::timestamp::Timestamp;
use justonce::store::embedded::{EmbeddedStore, Location};
use justonce::store::{Firing, Store};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::redis::{durable, prefix};
use crate::support::{Client, Setup, World};

const STRICT: &str = r#"
[task_types.strict]
runner = { builtin = "echo" }
params_schema = "strict.json"
require_key = true
"#;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_ms(since.as_millis().try_into().unwrap())
}

fn time(value: &Value) -> Timestamp {
    Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap()
}

async fn put(client: &Client, name: &str, schedule: &Value) -> crate::support::client::Reply {
    let path = format!("/v1/schedules/{name}");
    client.put(&path).json(schedule).send().await
}

async fn shown(client: &Client, name: &str) -> Value {
    let reply = client.get(&format!("/v1/schedules/{name}")).send().await;
    reply.expect(200).json()
}

/// A service with a type that takes a number only, and a key always.
async fn strict() -> crate::support::Service {
    let setup = Setup::new().config(STRICT);
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    std::fs::write(setup.folder().join("strict.json"), schema.to_string()).unwrap();
    setup.start().await
}

#[tokio::test]
async fn a_schedule_is_put_shown_listed_and_deleted() {
    let service = strict().await;
    let client = service.client().user("ann");
    let wanted = json!({"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "type": "strict", "params": {"n": 7},
        "missed": "run_all", "paused": false});
    let created = put(&client, "nightly.1", &wanted).await.expect(201);
    assert_eq!(created.header("location"), Some("/v1/schedules/nightly.1"));
    assert!(created.header("durability").is_some());
    let created = created.json();
    for (member, value) in wanted.as_object().unwrap() {
        assert_eq!(&created[member], value, "{member}");
    }
    let cadence = Cadence::parse("30 2 * * *", "Europe/Berlin").unwrap();
    let next = time(&created["next_fire_at"]);
    assert_eq!(
        cadence.next_after(Timestamp::from_ms(next.as_ms() - 1)),
        Some(next)
    );
    assert!(next > now() && next < now().plus(Duration::from_secs(26 * 3600)));
    assert_eq!(
        (&created["last_fired_at"], &created["last_task_id"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(shown(&client, "nightly.1").await, created);

    // What is not said has its default; a paused one does not fire.
    let paused = json!({"cron": "@hourly", "type": "echo", "paused": true});
    let resting = put(&client, "Z-z", &paused).await.expect(201).json();
    assert_eq!(
        (
            &resting["time_zone"],
            &resting["params"],
            &resting["missed"],
            &resting["next_fire_at"]
        ),
        (&json!("UTC"), &json!({}), &json!("run_once"), &Value::Null)
    );
    let resumed = json!({"cron": "@hourly", "type": "echo"});
    let resumed = put(&client, "Z-z", &resumed).await.expect(200).json();
    assert!(time(&resumed["next_fire_at"]) > now());
    let list = client.get("/v1/schedules").send().await.expect(200).json();
    let names = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["Z-z", "nightly.1"]);

    let other = service.client().user("bob");
    other
        .get("/v1/schedules/nightly.1")
        .send()
        .await
        .problem(404, "not-found");
    other
        .delete("/v1/schedules/nightly.1")
        .send()
        .await
        .problem(404, "not-found");
    assert_eq!(
        other.get("/v1/schedules").send().await.json()["items"],
        json!([])
    );
    client
        .delete("/v1/schedules/nightly.1")
        .send()
        .await
        .expect(204);
    for gone in [
        client.get("/v1/schedules/nightly.1"),
        client.delete("/v1/schedules/nightly.1"),
    ] {
        gone.send().await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_pointed_at() {
    let service = strict().await;
    let client = service.client();
    let cases = [
        (json!({"type": "echo"}), "/cron"),
        (json!({"type": "echo", "cron": 5}), "/cron"),
        (json!({"type": "echo", "cron": "* * * *"}), "/cron"),
        (json!({"type": "echo", "cron": "61 * * * *"}), "/cron"),
        (json!({"type": "echo", "cron": "0 0 30 2 *"}), "/cron"),
        (
            json!({"type": "echo", "cron": "0 0 31 4 *", "paused": true}),
            "/cron",
        ),
        (
            json!({"type": "echo", "cron": "* * * * *", "time_zone": "Mars/Base"}),
            "/time_zone",
        ),
        (
            json!({"type": "echo", "cron": "* * * * *", "time_zone": "+01:00"}),
            "/time_zone",
        ),
        (
            json!({"type": "echo", "cron": "* * * * *", "missed": "later"}),
            "/missed",
        ),
        (
            json!({"type": "echo", "cron": "* * * * *", "paused": "no"}),
            "/paused",
        ),
        (
            json!({"type": "echo", "cron": "* * * * *", "params": 1}),
            "/params",
        ),
        (
            json!({"type": "strict", "cron": "* * * * *", "params": {"n": "x"}}),
            "/params/n",
        ),
        (
            json!({"type": "process_file", "cron": "* * * * *"}),
            "/file",
        ),
        (json!({"cron": "* * * * *"}), "/type"),
        (
            json!({"type": "echo", "cron": "* * * * *", "priority": 1}),
            "/priority",
        ),
        (json!([]), ""),
    ];
    for (schedule, pointer) in cases {
        let problem = put(&client, "s", &schedule)
            .await
            .problem(422, "validation-failed");
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{schedule}: {problem}"
        );
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
    }
    let several = json!({"cron": "x", "type": "strict", "params": {}, "missed": 1});
    let problem = put(&client, "s", &several)
        .await
        .problem(422, "validation-failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3, "{problem}");
    let unknown = json!({"cron": "* * * * *", "type": "nothing"});
    let problem = put(&client, "s", &unknown)
        .await
        .problem(422, "unknown-task-type");
    assert!(
        problem["known"]
            .as_array()
            .unwrap()
            .contains(&json!("strict"))
    );
    let fine = json!({"cron": "0 0 1 1 *", "type": "echo"});
    for name in ["a%20b", "%C3%BC", &"x".repeat(65)] {
        let problem = put(&client, name, &fine)
            .await
            .problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], "path:name", "{name}");
    }
    let twice = client
        .put("/v1/schedules/s")
        .json_text("{\"cron\": \"x\", \"cron\": \"y\"}");
    twice.send().await.problem(400, "invalid-json");
    let large =
        json!({"cron": "0 0 1 1 *", "type": "echo", "params": {"text": "x".repeat(65 * 1024)}});
    put(&client, "s", &large)
        .await
        .problem(413, "payload-too-large");
    let typeless = client
        .put("/v1/schedules/s")
        .header("content-type", "text/plain")
        .body("{}");
    typeless.send().await.problem(415, "unsupported-media-type");
    client
        .get("/v1/schedules/s")
        .send()
        .await
        .problem(404, "not-found");
}

/// Task ids by the key of their firing, of all that ran.
fn firings(runs: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut firings = BTreeMap::<_, BTreeSet<String>>::new();
    for run in runs {
        let text = |member: &str| run[member].as_str().unwrap().to_owned();
        firings
            .entry(text("idempotency_key"))
            .or_default()
            .insert(text("id"));
    }
    firings
}

/// One task for each second, from the first one to the last.
fn assert_once_each_second(firings: &BTreeMap<String, BTreeSet<String>>) {
    let times: Vec<_> = firings
        .iter()
        .map(|(key, tasks)| {
            assert_eq!(tasks.len(), 1, "{key} has fired more than once: {tasks:?}");
            let at = key.rsplit('/').next().unwrap();
            Timestamp::parse_rfc3339(at).unwrap().as_ms()
        })
        .collect();
    for (one, next) in times.iter().zip(&times[1..]) {
        assert_eq!(next - one, 1000, "{times:?}");
    }
}

fn each_second() -> Value {
    json!({"cron": "* * * * * *", "type": "recorded", "params": {"n": 1}, "missed": "run_all"})
}

#[tokio::test]
async fn firings_run_once_each_over_kills() {
    let world = World::new();
    let config = format!(
        "[task_types.recorded]\nrunner = {{ {} }}\n",
        world.recorder("recorded")
    );
    let mut service = Setup::new().config(&config).start().await;
    put(&service.client(), "tick", &each_second())
        .await
        .expect(201);
    for kill in 1..=3 {
        until("more firings", async || {
            (firings(&world.runs()).len() >= 2 * kill).then_some(())
        })
        .await;
        service = service.kill().await.start().await;
    }
    let client = service.client();
    put(
        &client,
        "tick",
        &json!({"cron": "* * * * * *", "type": "recorded", "paused": true}),
    )
    .await
    .expect(200);
    let resting = shown(&client, "tick").await;
    assert_eq!(resting["next_fire_at"], Value::Null);
    let last = resting["last_task_id"].as_str().unwrap();
    assert_eq!(
        client.ended(last).await["tags"],
        json!({"schedule": "tick"})
    );
    until("what was fired to run", async || {
        let tasks = client.list("tag=schedule:tick&limit=200").await;
        let all_ran = tasks.iter().all(|task| task["state"] == "succeeded");
        (all_ran && firings(&world.runs()).len() >= tasks.len()).then_some(())
    })
    .await;
    assert_once_each_second(&firings(&world.runs()));
}

#[tokio::test]
async fn two_replicas_fire_once_and_one_goes_on_when_the_other_is_killed() {
    let world = World::new();
    let config = format!(
        "[task_types.recorded]\nrunner = {{ {} }}\n",
        world.recorder("recorded")
    );
    let (url, prefix) = (durable().url(), prefix());
    let replica = || {
        let setup = Setup::new().config(&config);
        setup
            .env("REDIS_URL", &url)
            .env("JUSTONCE_REDIS_PREFIX", &prefix)
            .start()
    };
    let (one, other) = tokio::join!(replica(), replica());
    put(&one.client(), "tick", &each_second()).await.expect(201);
    let reach = async |count: usize| {
        until("firings", async || {
            (firings(&world.runs()).len() >= count).then_some(())
        })
        .await;
    };
    reach(4).await;
    one.kill().await;
    let at_the_kill = firings(&world.runs()).len();
    reach(at_the_kill + 3).await;
    let client = other.client();
    client.delete("/v1/schedules/tick").send().await.expect(204);
    until("what was fired to run", async || {
        let tasks = client.list("tag=schedule:tick&limit=200").await;
        (firings(&world.runs()).len() >= tasks.len()).then_some(())
    })
    .await;
    assert_once_each_second(&firings(&world.runs()));
}

/// Lets schedules of a service that is down stand where they would have stood had it died then.
async fn rewind(setup: &Setup, names: &[&str], to: Timestamp) {
    let data = Location::Folder(setup.folder().join("data"));
    let store = EmbeddedStore::open(&data, 1_000_000).unwrap();
    let user = UserId::anonymous();
    for name in names {
        let name = ScheduleName::parse(name).unwrap();
        let schedule = store.schedule(&user, &name).await.unwrap().unwrap();
        let firing = Firing {
            user: user.clone(),
            name,
            revision: schedule.revision,
            next_revision: schedule.revision + 1,
            fired: None,
            next_fire_at: Some(to),
            put_off: Duration::ZERO,
        };
        assert!(store.record_firing(firing).await.unwrap());
    }
    store.close().await;
}

async fn gone_on(client: &Client, name: &str) -> Value {
    until("the schedule to go on", async || {
        let schedule = shown(client, name).await;
        (time(&schedule["next_fire_at"]) > now()).then_some(schedule)
    })
    .await
}

#[tokio::test]
async fn missed_firings_go_by_the_policy() {
    if std::env::var("TEST_STORE").is_ok() {
        return;
    }
    let service = Setup::new().start().await;
    let client = service.client();
    // Half an hour away from now, so that none of them is on time.
    let minute = (now().as_ms() / 60_000 + 30) % 60;
    let cron = format!("{minute} * * * *");
    let policies = ["skip", "run_once", "run_all"];
    for missed in policies {
        let schedule = json!({"cron": cron, "type": "echo", "missed": missed});
        put(&client, missed, &schedule).await.expect(201);
    }
    let setup = service.kill().await;
    let cadence = Cadence::parse(&cron, "UTC").unwrap();
    let hours = |count: i64| Timestamp::from_ms(now().as_ms() - count * 3_600_000);
    let first = cadence.next_after(hours(5)).unwrap();
    rewind(&setup, &policies, first).await;
    let service = setup.start().await;
    let client = service.client();
    let newest = cadence.last_between(hours(5), now()).unwrap();
    for (missed, count) in policies.into_iter().zip([0, 1, 5]) {
        let schedule = gone_on(&client, missed).await;
        let tasks = client.list(&format!("tag=schedule:{missed}")).await;
        assert_eq!(tasks.len(), count, "{missed}");
        let fired_at = (count > 0).then(|| newest.to_string());
        assert_eq!(schedule["last_fired_at"], json!(fired_at), "{missed}");
        let newest_task = tasks.first().map(|task| task["id"].clone());
        assert_eq!(
            schedule["last_task_id"],
            newest_task.unwrap_or_default(),
            "{missed}"
        );
    }
}

#[tokio::test]
async fn a_firing_that_was_submitted_and_not_recorded_runs_once() {
    if std::env::var("TEST_STORE").is_ok() {
        return;
    }
    let service = Setup::new().start().await;
    let yearly = json!({"cron": "0 0 1 1 *", "type": "echo", "params": {"n": 1}});
    put(&service.client(), "yearly", &yearly).await.expect(201);
    let cadence = Cadence::parse("0 0 1 1 *", "UTC").unwrap();
    let at = cadence.last_between(Timestamp::from_ms(0), now()).unwrap();
    let mut setup = service.kill().await;
    let mut tasks = BTreeSet::new();
    for _ in 0..2 {
        rewind(&setup, &["yearly"], at).await;
        let service = setup.start().await;
        let schedule = gone_on(&service.client(), "yearly").await;
        assert_eq!(time(&schedule["last_fired_at"]), at);
        tasks.insert(schedule["last_task_id"].as_str().unwrap().to_owned());
        setup = service.kill().await;
    }
    // Not even after a change to what it submits.
    let service = setup.start().await;
    let changed = json!({"cron": "0 0 1 1 *", "type": "echo", "params": {"n": 2}});
    put(&service.client(), "yearly", &changed).await.expect(200);
    let setup = service.kill().await;
    rewind(&setup, &["yearly"], at).await;
    let service = setup.start().await;
    let client = service.client();
    let schedule = gone_on(&client, "yearly").await;
    tasks.insert(schedule["last_task_id"].as_str().unwrap().to_owned());
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    assert_eq!(client.list("tag=schedule:yearly").await.len(), 1);
}

#[tokio::test]
async fn a_firing_obeys_the_rules_of_its_type_as_they_are_by_then() {
    let service = strict().await;
    let client = service.client();
    let each_second = json!({"cron": "* * * * * *", "type": "strict", "params": {"n": 1}});
    put(&client, "s", &each_second).await.expect(201);
    // The type asks for a key: a firing has its own.
    let fired = until("a firing", async || {
        client.list("tag=schedule:s").await.into_iter().next()
    })
    .await;
    assert_eq!(
        client.ended(fired["id"].as_str().unwrap()).await["state"],
        "succeeded"
    );
    assert_eq!(shown(&client, "s").await["last_error"], Value::Null);
    // It wants something else now.
    let change = |of: &str| {
        let schema = json!({"type": "object", "properties": {"n": {"type": of}}});
        std::fs::write(service.folder().join("strict.json"), schema.to_string()).unwrap();
        service.signal(Signal::HUP);
    };
    change("string");
    let refused = until("a refusal", async || {
        let schedule = shown(&client, "s").await;
        schedule["last_error"].is_object().then_some(schedule)
    })
    .await;
    let detail = refused["last_error"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("/params/n: "), "{detail}");
    assert!(time(&refused["last_error"]["at"]) > time(&refused["last_fired_at"]));
    let count = client.list("tag=schedule:s&limit=200").await.len();
    let at = &refused["last_error"]["at"];
    until("another refusal", async || {
        let schedule = shown(&client, "s").await;
        (schedule["last_error"]["at"] != *at).then_some(())
    })
    .await;
    assert_eq!(
        client.list("tag=schedule:s&limit=200").await.len(),
        count,
        "what its type does not take was submitted"
    );
    change("integer");
    until("it to go on", async || {
        let schedule = shown(&client, "s").await;
        schedule["last_error"].is_null().then_some(())
    })
    .await;
}
