//! Kill and restart, with the truth counted outside of the service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::{Client, Setup, World};

/// Types whose attempts can be watched, with leases short enough that a test can wait for a rescue.
fn setup(world: &World) -> Setup {
    let (record, gate) = (world.recorder("record"), world.gate("gate"));
    Setup::new().config(&format!(
        "[task_types.record]\nrunner = {{ {record} }}\nlease_seconds = 1\n\
         [task_types.gated]\nrunner = {{ {gate} }}\nlease_seconds = 1\n"
    ))
}

/// Submits distinct tasks until the service is gone; every acknowledgement is noted by its key.
async fn submit_until_gone(
    client: Client,
    name: usize,
    acknowledged: Arc<Mutex<BTreeMap<String, String>>>,
    count: Arc<AtomicUsize>,
) {
    for n in 0.. {
        let key = format!("client-{name}-{n}");
        let task = json!({"type": kind(n), "params": {"key": key}});
        let request = client.post("/v1/tasks").key(&key).json(&task);
        let Some(reply) = request.try_send().await else {
            return;
        };
        acknowledged.lock().unwrap().insert(key, reply.id());
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Every twentieth runs a program, so that some attempts are under way at any time.
fn kind(n: usize) -> &'static str {
    if n.is_multiple_of(20) {
        "record"
    } else {
        "echo"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigkill_under_load_loses_no_acknowledged_submission_and_completes_none_twice() {
    const CLIENTS: usize = 8;
    const ENOUGH: usize = 1_000;
    let world = World::new();
    let service = setup(&world).start().await;
    // One task is certainly in flight: its program waits for the gate.
    let held = service
        .client()
        .submit(&json!({"type": "gated"}), "held")
        .await
        .id();
    world.runs_reach(1).await;

    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let count = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..CLIENTS)
        .map(|name| {
            let (acknowledged, count) = (acknowledged.clone(), count.clone());
            tokio::spawn(submit_until_gone(
                service.client(),
                name,
                acknowledged,
                count,
            ))
        })
        .collect();
    until("a load of submissions", async || {
        (count.load(Ordering::Relaxed) >= ENOUGH).then_some(())
    })
    .await;
    let setup = service.kill().await;
    for client in load {
        client.await.unwrap();
    }
    world.open_gate();
    let service = setup.start().await;
    let client = service.client();
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() >= ENOUGH);
    let mut ids = BTreeSet::new();
    for (key, id) in &acknowledged {
        let ended = client.ended(id).await;
        assert_eq!(ended["state"], "succeeded", "{key}: {ended}");
        assert!(ids.insert(id.clone()), "{id} was given twice");
    }
    let ended = client.ended(&held).await;
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["attempt"], 2, "the attempt that was killed counts");

    // The keys still name the same tasks, and nothing is recorded as complete more often than there are tasks.
    for (key, id) in acknowledged.iter().step_by(37) {
        let n: usize = key.rsplit('-').next().unwrap().parse().unwrap();
        let task = json!({"type": kind(n), "params": {"key": key}});
        assert_eq!(&client.submit(&task, key).await.expect(200).id(), id);
    }
    let stats = until("the unacknowledged to end", async || {
        let stats = client.stats().await;
        (stats["pending"] == 0 && stats["running"] == 0).then_some(stats)
    })
    .await;
    assert_eq!(stats["completed"], stats["total_tasks"]);
    let total = stats["total_tasks"].as_u64().unwrap() as usize;
    let unacknowledged_max = CLIENTS;
    assert!(
        total <= acknowledged.len() + 1 + unacknowledged_max,
        "{total}"
    );

    // Outside: each recorded task ran at least once, and a repeat only where the kill cut an attempt.
    let mut runs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for run in world.runs() {
        let attempts = runs
            .entry(run["id"].as_str().unwrap().to_owned())
            .or_default();
        attempts.push(run["attempt"].as_u64().unwrap());
    }
    for (key, id) in &acknowledged {
        let n: usize = key.rsplit('-').next().unwrap().parse().unwrap();
        if kind(n) == "record" {
            let attempts = runs.get(id).unwrap_or_else(|| panic!("{key} never ran"));
            let distinct: BTreeSet<_> = attempts.iter().collect();
            assert_eq!(
                distinct.len(),
                attempts.len(),
                "{key} ran one attempt twice: {attempts:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_a_row_lose_nothing() {
    const ROUNDS: usize = 6;
    let world = World::new();
    let mut service = setup(&world).start().await;
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let client = service.client();
        for n in 0..20 {
            let key = format!("round-{round}-{n}");
            let task = json!({"type": "record", "params": {"key": key}});
            acknowledged.push((
                key.clone(),
                client.submit(&task, &key).await.expect(202).id(),
            ));
        }
        service = service.kill().await.start().await;
    }
    let client = service.client();
    for (key, id) in &acknowledged {
        let ended = client.ended(id).await;
        assert_eq!(ended["state"], "succeeded", "{key}: {ended}");
    }
    let ran: BTreeSet<_> = world.runs().iter().map(|r| r["id"].to_string()).collect();
    assert_eq!(ran.len(), acknowledged.len());
}

#[tokio::test]
async fn a_task_that_kills_its_worker_fails_with_its_attempts_counted() {
    let world = World::new();
    let script = "printf '%s\\n' \"$task\" >> \"$world/runs\"\n\
        while [ ! -e \"$world/open\" ]; do sleep 0.02; done\n\
        rm \"$world/open\"\n\
        kill -9 $PPID";
    let runner = world.command("murder", script);
    let mut setup = Setup::new().config(&format!(
        "[task_types.murder]\nrunner = {{ {runner} }}\nlease_seconds = 1\nretry = {{ max_attempts = 2 }}\n"
    ));
    let mut id = None;
    for attempt in 1..=2 {
        let service = setup.start().await;
        if id.is_none() {
            let reply = service
                .client()
                .submit_keyless(&json!({"type": "murder"}))
                .await;
            id = Some(reply.id());
        }
        world.runs_reach(attempt).await;
        world.open_gate();
        (_, setup) = service.ended().await;
    }
    let service = setup.start().await;
    let ended = service.client().ended(&id.unwrap()).await;
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["attempt"], 2);
    assert!(ended["error"]["message"].is_string(), "{ended}");
    assert_eq!(world.runs().len(), 2);
}

#[tokio::test]
async fn sigterm_hands_a_running_task_back_without_counting_its_attempt() {
    let world = World::new();
    let service = setup(&world)
        .env("JUSTONCE_DRAIN_GRACE_SECONDS", "1")
        .start()
        .await;
    let id = service
        .client()
        .submit(&json!({"type": "gated"}), "k")
        .await
        .id();
    let runs = world.runs_reach(1).await;
    assert_eq!(runs[0]["attempt"], 1);
    service.terminate();
    let (status, setup) = service.ended().await;
    assert!(status.success(), "{status}");
    world.open_gate();
    let service = setup.start().await;
    let ended = service.client().ended(&id).await;
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["attempt"], 1, "an attempt handed back was counted");
    assert_eq!(world.runs().len(), 2);
}

#[tokio::test]
async fn sigterm_lets_what_ends_within_the_grace_end() {
    let world = World::new();
    let service = setup(&world)
        .env("JUSTONCE_DRAIN_GRACE_SECONDS", "30")
        .start()
        .await;
    let id = service
        .client()
        .submit(&json!({"type": "gated"}), "k")
        .await
        .id();
    world.runs_reach(1).await;
    service.terminate();
    world.open_gate();
    let (status, setup) = service.ended().await;
    assert!(status.success(), "{status}");
    let service = setup.start().await;
    let ended = service.client().ended(&id).await;
    assert_eq!(
        (&ended["state"], &ended["attempt"]),
        (&json!("succeeded"), &json!(1))
    );
    assert_eq!(
        world.runs().len(),
        1,
        "a task that had time to end ran again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_turns_readyz_first_and_answers_what_waits() {
    let world = World::new();
    let service = setup(&world)
        .env("JUSTONCE_DRAIN_DELAY_SECONDS", "3")
        .env("JUSTONCE_DRAIN_GRACE_SECONDS", "1")
        .start()
        .await;
    let client = service.client();
    let id = client.submit(&json!({"type": "gated"}), "k").await.id();
    world.runs_reach(1).await;
    let waiting = {
        let (client, path) = (client.clone(), format!("/v1/tasks/{id}"));
        tokio::spawn(async move { client.get(&path).wait(50).send().await })
    };
    let upload = long_upload(&service).await;
    service.terminate();
    until("readyz to turn", async || {
        let ready = client.get("/readyz").send().await;
        (ready.status == 503).then_some(())
    })
    .await;
    // Unready, but still serving; and nobody is to keep a connection.
    let alive = client.get("/livez").send().await.expect(200);
    assert_eq!(alive.header("connection"), Some("close"));
    client
        .get(&format!("/v1/tasks/{id}"))
        .send()
        .await
        .expect(200);
    let waited: Value = waiting.await.unwrap().expect(200).json();
    assert_eq!(waited["state"], "running");
    assert_eq!(upload.finish().await, 201);
    let (status, _) = service.ended().await;
    assert!(status.success(), "{status}");
}

/// An upload of which the last byte has not been sent.
struct LongUpload(crate::support::wire::Wire);

async fn long_upload(service: &crate::support::Service) -> LongUpload {
    let mut wire = crate::support::wire::Wire::connect(service.address).await;
    wire.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 4\r\n\r\na;b").await;
    LongUpload(wire)
}

impl LongUpload {
    async fn finish(mut self) -> u16 {
        self.0.send("\n").await;
        self.0.answer().await.unwrap().status
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let service = Setup::new().start().await;
    let second = service.setup().command().output().await.unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).to_lowercase();
    assert!(
        said.contains("in use") || said.contains("lock") || said.contains("another"),
        "{said}"
    );
    service.client().get("/readyz").send().await.expect(200);
}
