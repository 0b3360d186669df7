//! Newer work overtakes older, and keys lose interest: through HTTP.

use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::{Client, Reply, Setup, World};

fn echo(mode: &str, doc: u32, text: &str) -> Value {
    json!({
        "type": "echo", "params": {"doc": doc, "text": text},
        "dedup": {"mode": mode, "by": ["/doc"]},
    })
}

async fn cancel(client: &Client, id: &str, body: Value) -> Reply {
    let path = format!("/v1/tasks/{id}/cancel");
    client.post(&path).json(&body).send().await
}

#[tokio::test]
async fn a_superseded_task_names_its_successor() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let first = client
        .submit(&echo("replace", 1, "a"), "a")
        .await
        .expect(202);
    assert!(first.json().get("superseded_by").is_none());
    let mut events = client
        .follow(&format!("/v1/tasks/{}/events", first.id()), None)
        .await;
    assert_eq!(events.next().await.unwrap().state(), "queued");
    let second = client
        .submit(&echo("replace", 1, "b"), "b")
        .await
        .expect(202);
    assert_eq!(second.json()["deduplicated"], false);
    let old = client.task(&first.id()).await;
    assert_eq!(old["state"], "cancelled");
    assert_eq!(old["superseded_by"], json!(second.id()));
    // Those who follow it are told, and their stream ends.
    let rest = events.rest().await;
    let [last] = &rest[..] else {
        panic!("{} events", rest.len());
    };
    assert_eq!(last.state(), "cancelled");
    assert_eq!(last.task["superseded_by"], json!(second.id()));
    // A key is one intent.
    let replay = client
        .submit(&echo("replace", 1, "a"), "a")
        .await
        .expect(200);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!(replay.json()["superseded_by"], json!(second.id()));
    client
        .submit(&echo("replace", 1, "c"), "a")
        .await
        .problem(422, "idempotency-key-reused");
    assert_eq!(client.task(&second.id()).await["state"], "queued");
    let redrive = format!("/v1/tasks/{}/redrive", first.id());
    client
        .post(&redrive)
        .send()
        .await
        .problem(409, "duplicate-submission");
    let stats = client.stats().await;
    assert_eq!(
        (&stats["cancelled"], &stats["failed"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(stats["windows"]["all"]["failures"], 0);
}

#[tokio::test]
async fn a_kill_gives_no_place_back() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let first = client
        .submit(&echo("replace", 1, "a"), "a")
        .await
        .expect(202)
        .id();
    let second = client
        .submit(&echo("replace", 1, "b"), "b")
        .await
        .expect(202)
        .id();
    let same = client
        .submit(&echo("replace", 1, "b"), "c")
        .await
        .expect(202);
    assert_eq!(same.id(), second);
    cancel(&client, &second, json!({"key": "b"}))
        .await
        .expect(202);
    let service = service.kill().await.start().await;
    let client = service.client();
    assert_eq!(client.task(&first).await["superseded_by"], json!(second));
    // What was withdrawn stays so.
    let stopped = cancel(&client, &second, json!({"key": "c"}))
        .await
        .expect(200);
    assert_eq!(stopped.json()["state"], "cancelled");
    let third = client
        .submit(&echo("replace", 1, "a"), "d")
        .await
        .expect(202);
    assert_eq!(third.json()["deduplicated"], false);
    assert!(client.task(&second).await.get("superseded_by").is_none());
}

#[tokio::test]
async fn debounced_submissions_start_once_after_the_last() {
    let service = Setup::new().start().await;
    let client = service.client();
    let of = |text: &str, delay: f64| {
        let mut task = echo("debounce", 1, text);
        task["dedup"]["delay_seconds"] = json!(delay);
        task["dedup"]["max_delay_seconds"] = json!(3600);
        task
    };
    let mut ids = Vec::new();
    for text in ["a", "b", "c"] {
        let reply = client.submit_keyless(&of(text, 600.0)).await.expect(202);
        assert_eq!(reply.json()["state"], "scheduled");
        ids.push(reply.id());
    }
    let again = client.submit_keyless(&of("c", 700.0)).await.expect(202);
    assert_eq!(again.json()["matched_by"], "fingerprint");
    assert!(
        again.json()["scheduled_at"].as_str() > client.task(&ids[1]).await["scheduled_at"].as_str()
    );
    let last = client.submit_keyless(&of("d", 0.05)).await.expect(202).id();
    let done = client.ended(&last).await;
    assert_eq!(done["state"], "succeeded");
    assert_eq!(done["result"], json!({"doc": 1, "text": "d"}));
    for id in ids {
        assert_eq!(client.task(&id).await["state"], "cancelled");
    }
}

#[tokio::test]
async fn a_throttled_submission_gets_the_first_task_and_the_check_says_so() {
    let service = Setup::new().start().await;
    let client = service.client();
    let of = |text: &str| {
        let mut task = echo("throttle", 1, text);
        task["dedup"]["window_seconds"] = json!(600);
        task
    };
    let first = client.submit(&of("a"), "a").await.expect(202).id();
    let done = client.ended(&first).await;
    let other = client.submit(&of("b"), "b").await.expect(200);
    let told = other.json();
    assert_eq!(
        (&told["id"], &told["matched_by"]),
        (&json!(first), &json!("dedup_by"))
    );
    assert_eq!(told["result"], json!({"doc": 1, "text": "a"}));
    assert_eq!(told["matched_since"], done["created_at"]);
    assert_eq!(told["matched_until"], done["dedup_expires_at"]);
    assert_eq!(other.header("idempotent-replayed"), None);
    let check = async |task: &Value| {
        let reply = client.post("/v1/tasks/check").json(task).send().await;
        reply.expect(200).json()
    };
    let verdict = check(&of("c")).await;
    assert_eq!(verdict["verdict"], "duplicate");
    assert_eq!(verdict["matched_by"], "dedup_by");
    assert_eq!(verdict["task"]["id"], json!(first));
    assert_eq!(verdict["expires_at"], done["dedup_expires_at"]);
    assert_eq!(check(&echo("throttle", 2, "a")).await["verdict"], "new");
    assert_eq!(check(&echo("replace", 1, "c")).await["verdict"], "new");
    let path = format!("/v1/tasks/{first}/duplicates");
    let ledger = client.get(&path).send().await.expect(200).json();
    assert_eq!(ledger["items"][0]["matched_by"], "dedup_by");
    // The key that was throttled is kept like any other.
    let replay = client.submit(&of("b"), "b").await.expect(200);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    client
        .submit(&of("x"), "b")
        .await
        .problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn the_newest_of_many_runs_after_the_running_one() {
    let world = World::new();
    let runner = world.gate("gate");
    let config = format!(
        "[task_types.gated]\nrunner = {{ {runner} }}\ndedup = {{ mode = \"keep_last\", by = [\"/doc\"] }}\n"
    );
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let of = |n: u32| json!({"type": "gated", "params": {"doc": 1, "n": n}});
    let running = client.submit_keyless(&of(0)).await.expect(202).id();
    world.runs_reach(1).await;
    let mut ids = Vec::new();
    for n in 1..4 {
        let reply = client.submit_keyless(&of(n)).await.expect(202);
        assert_eq!(reply.json()["state"], "scheduled", "{n}");
        ids.push(reply.id());
    }
    assert_eq!(client.task(&running).await["state"], "running");
    world.open_gate();
    assert_eq!(client.ended(&running).await["state"], "succeeded");
    assert_eq!(client.ended(&ids[2]).await["state"], "succeeded");
    for (old, new) in [(0, 1), (1, 2)] {
        let task = client.task(&ids[old]).await;
        assert_eq!(task["state"], "cancelled");
        assert_eq!(task["superseded_by"], json!(ids[new]));
    }
    assert_eq!(world.runs().len(), 2);
}

#[tokio::test]
async fn a_type_says_how_its_submissions_are_in_conflict() {
    let echo = "runner = { builtin = \"echo\" }";
    let config = format!(
        "[task_types.index]\n{echo}\n\
         dedup = {{ mode = \"debounce\", by = [\"/doc\"], delay_seconds = 600, max_delay_seconds = 1200 }}\n\
         [task_types.plain]\n{echo}\n"
    );
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let list = client.get("/v1/task-types").send().await.expect(200).json();
    let declared = |name: &str| {
        let items = list["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == name).unwrap()["dedup"].clone()
    };
    let index = declared("index");
    assert_eq!(index["mode"], "debounce");
    assert_eq!(index["by"], json!(["/doc"]));
    assert_eq!(
        (&index["delay_seconds"], &index["max_delay_seconds"]),
        (&json!(600.0), &json!(1200.0))
    );
    assert_eq!(declared("plain")["by"], json!([]));
    assert!(declared("plain").get("delay_seconds").is_none());

    let of = |text: &str| json!({"type": "index", "params": {"doc": 1, "text": text}});
    let first = client.submit_keyless(&of("a")).await.expect(202);
    assert_eq!(first.json()["state"], "scheduled");
    // Items of a batch are in conflict in their order.
    let batch = client
        .post("/v1/tasks/batch")
        .json(&json!([of("b"), of("c"), of("c"), {"type": "index", "dedup": {"mode": "debounce", "by": ["x"]}}]))
        .send()
        .await
        .expect(200)
        .json();
    let item = |at: usize| batch["items"][at].clone();
    assert_eq!(item(0)["status"], 202);
    assert_eq!(item(1)["task"]["id"], item(2)["task"]["id"]);
    assert_eq!(item(2)["task"]["matched_by"], "fingerprint");
    assert_eq!(item(3)["problem"]["errors"][0]["pointer"], "/dedup/by");
    let second = client.task(item(0)["task"]["id"].as_str().unwrap()).await;
    assert_eq!(second["superseded_by"], item(1)["task"]["id"]);
    assert_eq!(
        client.task(&first.id()).await["superseded_by"],
        second["id"]
    );
    // A submission may say otherwise, and start at once.
    let mut now = of("d");
    now["dedup"] = json!({"mode": "replace"});
    let now = client.submit_keyless(&now).await.expect(202).id();
    assert_eq!(client.ended(&now).await["state"], "succeeded");
    let mut late = of("e");
    late["delay_seconds"] = json!(5);
    let problem = client.submit_keyless(&late).await;
    let problem = problem.problem(422, "validation-failed");
    assert_eq!(problem["errors"][0]["pointer"], "/delay_seconds");
}

#[tokio::test]
async fn mistakes_are_named_by_their_pointers() {
    let service = Setup::new().start().await;
    let client = service.client();
    for (dedup, pointer) in [
        (json!({"mode": "debounce"}), "/dedup/delay_seconds"),
        (json!({"mode": "replace", "by": ["/doc"]}), "/dedup/by"),
        (json!({"mode": "return", "by": ["/doc"]}), "/dedup/by"),
        (json!({"mode": "newest"}), "/dedup/mode"),
        (
            json!({"mode": "throttle", "delay_seconds": 3}),
            "/dedup/delay_seconds",
        ),
    ] {
        let task = json!({"type": "echo", "dedup": dedup});
        let problem = client.submit(&task, "k").await;
        let problem = problem.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{dedup}");
    }
}

#[tokio::test]
async fn a_key_withdraws_its_interest_and_the_last_one_stops_the_work() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"n": 1}});
    let id = client.submit(&task, "a").await.expect(202).id();
    assert_eq!(client.submit(&task, "b").await.expect(202).id(), id);
    // Repeating it withdraws nothing else.
    for _ in 0..2 {
        let left = cancel(&client, &id, json!({"key": "a"})).await.expect(202);
        assert_eq!(left.json()["state"], "queued");
        assert_eq!(left.header("location"), Some(&*format!("/v1/tasks/{id}")));
    }
    let replay = client.submit(&task, "a").await.expect(202);
    assert_eq!(replay.id(), id);
    let stopped = cancel(&client, &id, json!({"key": "\"b\""}))
        .await
        .expect(200);
    assert_eq!(stopped.json()["state"], "cancelled");
    assert_eq!(
        client.submit(&task, "a").await.expect(200).json()["state"],
        "cancelled"
    );
    // Submissions without a key are one interest, and a key may not be guessed.
    let id = client.submit_keyless(&task).await.expect(202).id();
    client.submit(&task, "c").await.expect(202);
    cancel(&client, &id, json!({"key": "c"})).await.expect(202);
    for unknown in ["a", "never-used"] {
        let problem = cancel(&client, &id, json!({"key": unknown})).await;
        let problem = problem.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], "/key");
    }
    for wrong in [json!({"key": 7}), json!({"key": ""}), json!({"keys": "c"})] {
        cancel(&client, &id, wrong)
            .await
            .problem(422, "validation-failed");
    }
    assert_eq!(client.task(&id).await["state"], "queued");
    cancel(&client.user("stranger"), &id, json!({"key": "c"}))
        .await
        .problem(404, "not-found");
    cancel(&client, &id, json!({})).await.expect(200);
}

#[tokio::test]
async fn a_running_attempt_stops_when_its_last_key_goes() {
    let world = World::new();
    let runner = world.gate("gate");
    let config = format!("[task_types.gated]\nrunner = {{ {runner} }}\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let task = json!({"type": "gated"});
    let id = client.submit(&task, "a").await.id();
    client.submit(&task, "b").await.expect(202);
    world.runs_reach(1).await;
    cancel(&client, &id, json!({"key": "b"})).await.expect(202);
    assert_eq!(client.task(&id).await["state"], "running");
    let stopped = cancel(&client, &id, json!({"key": "a"})).await;
    assert!(matches!(stopped.status, 200 | 202), "{}", stopped.text());
    assert_eq!(stopped.json()["state"], "cancelled");
    // The content is free once the attempt has stopped.
    until("the content to be free", async || {
        let reply = client.submit_keyless(&task).await;
        (reply.id() != id).then_some(())
    })
    .await;
    world.open_gate();
}

#[tokio::test]
async fn firings_of_schedules_take_nobodys_place() {
    let config = "[task_types.index]\nrunner = { builtin = \"echo\" }\n\
                  dedup = { mode = \"debounce\", by = [\"/doc\"], delay_seconds = 600 }\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let waiting = json!({"type": "index", "params": {"doc": 1, "text": "a"}});
    let waiting = client.submit_keyless(&waiting).await.expect(202).id();
    let plan = json!({"type": "index", "cron": "* * * * * *", "params": {"doc": 1, "text": "b"}});
    client
        .put("/v1/schedules/often")
        .json(&plan)
        .send()
        .await
        .expect(201);
    until("a firing to have run", async || {
        let done = client.list("type=index&state=succeeded").await;
        (!done.is_empty()).then_some(())
    })
    .await;
    let task = client.task(&waiting).await;
    assert_eq!(task["state"], "scheduled");
}
