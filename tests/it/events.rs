//! Following tasks by server-sent events.

use serde_json::json;

use crate::support::deadline::until;
use crate::support::events::Event;
use crate::support::redis::{durable, prefix};
use crate::support::{Client, Service, Setup, World};

const ADMIN_KEY: &str = "jo_bootstrap0001_0123456789abcdef0123456789abcdef";

fn events_of(id: &str) -> String {
    format!("/v1/tasks/{id}/events")
}

/// Numbers and states.
fn outline(events: &[Event]) -> Vec<(u64, &str)> {
    let of = |event: &'_ Event| event.number();
    events
        .iter()
        .map(|event| (of(event), event.state()))
        .collect()
}

/// A service whose tasks of type `gated` wait for the gate.
async fn gated(world: &World) -> Service {
    let runner = world.gate("gate");
    let config = format!("[task_types.gated]\nrunner = {{ {runner} }}\n");
    Setup::new().config(&config).start().await
}

async fn running(world: &World, client: &Client) -> String {
    let id = client.submit(&json!({"type": "gated"}), "k").await.id();
    world.runs_reach(1).await;
    id
}

#[tokio::test]
async fn a_task_is_followed_to_its_end() {
    let world = World::new();
    let service = gated(&world).await;
    let client = service.client();
    let id = running(&world, &client).await;
    let task = client.task(&id).await;
    assert_eq!(task["links"]["events"], events_of(&id));
    let mut stream = client.follow(&events_of(&id), None).await;
    let first = stream.next().await.unwrap();
    assert_eq!((first.kind.as_str(), first.id.as_str()), ("state", "2"));
    assert_eq!(first.task, task);
    world.open_gate();
    let rest = stream.rest().await;
    assert_eq!(outline(&rest), [(3, "succeeded")]);
    assert_eq!(rest[0].task, client.task(&id).await);
}

#[tokio::test]
async fn events_that_were_missed_are_told_as_they_were_even_after_a_restart() {
    let setup = Setup::new()
        .config("[task_types.echo]\nretry = { max_attempts = 2, first_delay_seconds = 0.05 }\n");
    let service = setup.start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"fail_times": 1}});
    let id = client.submit(&task, "k").await.id();
    let ended = client.ended(&id).await;
    let told = [
        (2, "running"),
        (3, "retrying"),
        (4, "queued"),
        (5, "running"),
        (6, "succeeded"),
    ];
    let all = client.follow(&events_of(&id), Some("0")).await.rest().await;
    assert_eq!(outline(&all)[0], (1, "queued"));
    assert_eq!(outline(&all)[1..], told);
    let kinds: Vec<_> = all.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["state", "state", "attempt", "state", "attempt", "state"]
    );
    let waiting = &all[2].task;
    assert_eq!(waiting["attempt"], 1);
    assert!(waiting["next_attempt_at"].is_string() && waiting["error"].is_object());
    assert!(waiting["result"].is_null() && waiting["finished_at"].is_null());
    assert!(all[1].task["error"].is_null() && all[1].task["started_at"].is_string());
    assert_eq!(all[5].task, ended);

    let setup = service.kill().await;
    let service = setup.start().await;
    let client = service.client();
    let missed = client.follow(&events_of(&id), Some("1")).await.rest().await;
    assert_eq!(outline(&missed), told);
    let last = client.follow(&events_of(&id), Some("5")).await.rest().await;
    assert_eq!(outline(&last), [(6, "succeeded")]);
    // Nothing more will come: a browser asks no more.
    let over = client.get(&events_of(&id)).header("last-event-id", "6");
    over.send().await.expect(204);
    for unknown in ["7", "x", "-1"] {
        let events = client
            .follow(&events_of(&id), Some(unknown))
            .await
            .rest()
            .await;
        assert_eq!(outline(&events), [(6, "succeeded")], "{unknown}");
        assert_eq!(events[0].kind, "reset", "{unknown}");
        assert_eq!(events[0].task, ended);
    }
}

#[tokio::test]
async fn progress_is_told() {
    let world = World::new();
    let runner = world.command(
        "steps",
        "for n in 1 2 3; do echo \"{\\\"progress\\\": {\\\"done\\\": $n, \\\"total\\\": 3}}\"; sleep 0.3; done\necho 1",
    );
    let config = format!("[task_types.steps]\nrunner = {{ {runner} }}\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let id = client.submit(&json!({"type": "steps"}), "k").await.id();
    let events = client.follow(&events_of(&id), Some("0")).await.rest().await;
    let numbers: Vec<_> = events.iter().map(Event::number).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let progress = events.iter().filter(|event| event.kind == "progress");
    let done: Vec<_> = progress
        .map(|event| event.task["progress"]["done"].as_u64().unwrap())
        .collect();
    assert!(done.is_sorted() && done.last() == Some(&3), "{done:?}");
    assert_eq!(events.last().unwrap().state(), "succeeded");
}

#[tokio::test]
async fn nobody_follows_what_is_not_theirs() {
    let service = Setup::new().start().await;
    let (ann, bob) = (service.client().user("ann"), service.client().user("bob"));
    let id = ann.echo(json!({})).await["id"].as_str().unwrap().to_owned();
    let none = ["0".repeat(36), "x".to_owned(), id.clone()];
    for id in &none {
        let reply = bob.get(&events_of(id)).send().await;
        reply.problem(404, "not-found");
    }
    ann.delete(&format!("/v1/tasks/{id}")).send().await;
    ann.get(&events_of(&id))
        .send()
        .await
        .problem(410, "task-forgotten");
}

#[tokio::test]
async fn all_tasks_of_a_user_are_followed_and_no_others() {
    let service = Setup::new().start().await;
    let (ann, bob) = (service.client().user("ann"), service.client().user("bob"));
    let before = ann.echo(json!({"n": 0})).await;
    let mut stream = ann.follow("/v1/events", None).await;
    stream.comment().await;
    bob.echo(json!({"n": 1})).await;
    let after = ann.echo(json!({"n": 2})).await;
    let mut events = Vec::new();
    while events.len() < 3 {
        events.push(stream.next().await.unwrap());
    }
    let states = [(1, "queued"), (2, "running"), (3, "succeeded")];
    assert_eq!(outline(&events), states);
    assert!(events.iter().all(|event| event.task["id"] == after["id"]));
    let last = events.pop().unwrap();
    drop(stream);

    // Whatever may have been missed is told once more.
    let mut stream = ann.follow("/v1/events", Some(&last.id)).await;
    let mut told = Vec::new();
    while !told.contains(&after["id"]) {
        let event = stream.next().await.unwrap();
        assert_eq!((event.kind.as_str(), event.state()), ("reset", "succeeded"));
        told.push(event.task["id"].clone());
    }
    assert!(
        told.iter()
            .all(|id| *id == before["id"] || *id == after["id"])
    );
}

#[tokio::test]
async fn no_more_streams_than_may_be_and_places_become_free() {
    let setup = Setup::new().config("[limits]\nevent_streams_max = 1\n");
    let service = setup.start().await;
    let client = service.client();
    let stream = client.follow("/v1/events", None).await;
    let refused = client.get("/v1/events").send().await;
    refused.problem(503, "overloaded");
    assert!(refused.header("retry-after").is_some());
    drop(stream);
    until("a place", async || {
        let response = client.get("/v1/events").begin().await;
        (response.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_streams() {
    let world = World::new();
    let service = gated(&world).await;
    let client = service.client();
    let id = running(&world, &client).await;
    let mut one = client.follow(&events_of(&id), None).await;
    let all = client.follow("/v1/events", None).await;
    one.next().await.unwrap();
    service.terminate();
    assert_eq!(one.rest().await.len(), 0);
    all.rest().await;
    world.open_gate();
    let (status, _) = service.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn silence_is_broken_and_a_revoked_key_ends_its_streams() {
    let service = Setup::new()
        .env("JUSTONCE_AUTH", "keys")
        .env("JUSTONCE_BOOTSTRAP_KEY", ADMIN_KEY)
        .start()
        .await;
    let admin = service.client().bearer(ADMIN_KEY);
    let key = async |scope: &str| {
        let wanted = json!({"user": "ann", "scopes": [scope]});
        let made = admin
            .post("/v1/keys")
            .json(&wanted)
            .send()
            .await
            .expect(201)
            .json();
        let client = service.client().bearer(made["key"].as_str().unwrap());
        (client, made["id"].as_str().unwrap().to_owned())
    };
    let (writer, _) = key("submit").await;
    writer
        .get("/v1/events")
        .send()
        .await
        .problem(403, "forbidden");
    let (reader, id) = key("read").await;
    let task = json!({"type": "echo", "delay_seconds": 600});
    let task = writer.submit(&task, "k").await.id();
    let mut stream = reader.follow(&events_of(&task), None).await;
    assert_eq!(stream.next().await.unwrap().state(), "scheduled");
    stream.comment().await;
    admin.delete(&format!("/v1/keys/{id}")).send().await;
    stream.rest().await;
}

#[tokio::test]
async fn what_one_replica_does_is_told_by_another_and_goes_on_after_its_end() {
    let world = World::new();
    let runner = world.gate("gate");
    let config = format!("[task_types.gated]\nrunner = {{ {runner} }}\n");
    let prefix = prefix();
    let replica = async |workers: &str| {
        let setup = Setup::new()
            .env("REDIS_URL", &durable().url())
            .env("JUSTONCE_REDIS_PREFIX", &prefix)
            .env("JUSTONCE_WORKERS", workers);
        setup.config(&config).start().await
    };
    let (one, other) = (replica("2").await, replica("0").await);
    let mut all = other.client().follow("/v1/events", None).await;
    all.comment().await;
    let id = running(&world, &one.client()).await;
    let mut stream = other.client().follow(&events_of(&id), None).await;
    let first = stream.next().await.unwrap();
    assert_eq!((first.number(), first.state()), (2, "running"));
    for expected in [(1, "queued"), (2, "running")] {
        let event = all.next().await.unwrap();
        assert_eq!((event.number(), event.state()), expected);
        assert_eq!(event.task["id"], id.as_str());
    }
    drop((stream, all));
    other.kill().await;
    world.open_gate();
    let rest = one.client().follow(&events_of(&id), Some(&first.id)).await;
    assert_eq!(outline(&rest.rest().await), [(3, "succeeded")]);
}
