//! Batches: many submissions in one request, each with a verdict of its own.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::{Client, Reply, Service, Setup, World};

const PATH: &str = "/v1/tasks/batch";

async fn submit(client: &Client, items: &Value) -> Reply {
    client.post(PATH).json(items).send().await
}

#[track_caller]
fn verdicts(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["items"].as_array().unwrap().clone()
}

fn ids(verdicts: &[Value]) -> Vec<&str> {
    verdicts
        .iter()
        .map(|verdict| verdict["task"]["id"].as_str().unwrap())
        .collect()
}

fn echo(n: u32) -> Value {
    json!({"type": "echo", "params": {"n": n}})
}

async fn gated(world: &World) -> Service {
    let config = format!(
        "[task_types.gated]\nrunner = {{ {} }}\n",
        world.gate("gate")
    );
    Setup::new().config(&config).start().await
}

#[tokio::test]
async fn every_item_gets_its_verdict_in_order_and_a_bad_one_harms_no_other() {
    let service = Setup::new().start().await;
    let client = service.client();
    let unknown_file = json!({"type": "process_file", "file": {"sha256": "0".repeat(64)}});
    let items = json!([
        echo(1),
        {"type": "echo", "priority": 10},
        {"type": "nope"},
        7,
        {"type": "echo", "params": {"n": 2}, "idempotency_key": "own"},
        {"type": "echo", "params": {"n": 3}, "idempotency_key": "a b"},
        {"type": "echo", "params": {"n": 3}, "idempotency_key": 1},
        unknown_file,
        {"type": "echo", "params": {"n": 4}, "idempotency_key": "own"},
        {"type": "echo", "callback": 1},
    ]);
    let reply = submit(&client, &items).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("durability"), Some("fsync"));
    let verdicts = verdicts(&reply);
    let statuses: Vec<_> = verdicts
        .iter()
        .map(|v| v["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [202, 422, 422, 422, 202, 400, 400, 422, 422, 422]);
    let codes: Vec<_> = verdicts
        .iter()
        .map(|v| v["problem"]["code"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        codes,
        [
            "",
            "validation-failed",
            "unknown-task-type",
            "validation-failed",
            "",
            "idempotency-key-invalid",
            "idempotency-key-invalid",
            "file-unknown",
            "idempotency-key-reused",
            "validation-failed",
        ]
    );
    assert_eq!(verdicts[1]["problem"]["errors"][0]["pointer"], "/priority");
    assert_eq!(verdicts[8]["problem"]["differs"], json!(["/params/n"]));
    assert_eq!(verdicts[4]["idempotency_key"], "own");
    let request_id = reply.header("x-request-id");
    for (at, verdict) in verdicts.iter().enumerate() {
        let has_task = verdict.get("task").is_some();
        assert_ne!(has_task, verdict.get("problem").is_some(), "{verdict}");
        if !has_task {
            assert_eq!(verdict["problem"]["status"], verdict["status"], "{at}");
            assert_eq!(verdict["problem"]["request_id"].as_str(), request_id);
            assert_eq!(verdict["problem"]["instance"], PATH);
        }
    }
    for at in [0, 4] {
        let task = &verdicts[at]["task"];
        assert_eq!(task["deduplicated"], false);
        let ended = client.ended(task["id"].as_str().unwrap()).await;
        assert_eq!(ended["result"], items[at]["params"]);
    }
    assert_eq!(client.stats().await["total_tasks"], 2);
}

#[tokio::test]
async fn duplicates_within_a_batch_are_one_task_and_it_runs_once() {
    let world = World::new();
    let service = gated(&world).await;
    let client = service.client();
    let same = json!({"type": "gated", "params": {"n": 1}});
    let mut tagged = same.clone();
    tagged["tags"] = json!({"team": "red"});
    let mut keyed = same.clone();
    keyed["idempotency_key"] = json!("k");
    let items = json!([tagged, same, keyed, keyed, same]);
    let first = verdicts(&submit(&client, &items).await);
    let all: BTreeSet<_> = ids(&first).into_iter().collect();
    assert_eq!(all.len(), 1, "{first:?}");
    let matched: Vec<_> = first
        .iter()
        .map(|v| v["task"]["matched_by"].clone())
        .collect();
    assert_eq!(
        matched,
        [
            Value::Null,
            json!("fingerprint"),
            json!("fingerprint"),
            json!("idempotency_key"),
            json!("fingerprint")
        ]
    );
    assert_eq!(first[1]["task"]["deduplicated"], true);
    // A single submission shares keys and contents with batches.
    let single = client.submit(&same, "k").await.expect(202);
    assert_eq!(single.id(), ids(&first)[0]);
    assert_eq!(single.json()["matched_by"], "idempotency_key");
    world.open_gate();
    let ended = client.ended(ids(&first)[0]).await;
    assert_eq!(ended["duplicates"], 5);
    assert_eq!(world.runs().len(), 1);
    let again = verdicts(&submit(&client, &items).await);
    assert!(again.iter().all(|v| v["status"] == 200), "{again:?}");
    assert!(
        again[2]["idempotency_expires_at"]
            .as_str()
            .unwrap()
            .ends_with('Z'),
        "{:?}",
        again[2]
    );
    assert_eq!(again[0]["task"]["result"], json!({"ran": true}));
    assert_eq!(world.runs().len(), 1);
}

#[tokio::test]
async fn a_key_on_the_batch_names_every_item_and_its_repeat_gives_the_same_tasks() {
    let service = Setup::new().start().await;
    let client = service.client();
    let items: Vec<_> = (0..300)
        .map(|n| match n {
            7 => json!({"type": "echo", "params": {"n": n}, "idempotency_key": "own"}),
            n => json!({"type": "echo", "params": {"n": n}, "dedup": {"mode": "none"}}),
        })
        .collect();
    let items = json!(items);
    let send = || client.post(PATH).key("\"the batch\"").json(&items).send();
    let reply = send().await;
    assert_eq!(reply.header("idempotency-key"), Some("\"the batch\""));
    let first = verdicts(&reply);
    assert_eq!(ids(&first).into_iter().collect::<BTreeSet<_>>().len(), 300);
    assert_eq!(first[0]["idempotency_key"], "the batch/0");
    assert_eq!(first[7]["idempotency_key"], "own");
    assert_eq!(first[299]["idempotency_key"], "the batch/299");
    let again = verdicts(&send().await);
    assert_eq!(ids(&again), ids(&first));
    for verdict in &again {
        assert_eq!(verdict["task"]["matched_by"], "idempotency_key");
    }
    // The derived keys are keys like any other.
    let key = "\"the batch/12\"";
    let single = client.submit(&items[12], key).await;
    assert_eq!(single.id(), ids(&first)[12]);
    let mut changed = items.clone();
    changed[3]["params"]["n"] = json!("other");
    let changed = client.post(PATH).key("\"the batch\"").json(&changed);
    let changed = verdicts(&changed.send().await);
    assert_eq!(changed[3]["status"], 422);
    assert_eq!(changed[3]["problem"]["code"], "idempotency-key-reused");
    assert_eq!(ids(&changed[4..]), ids(&first[4..]));
}

#[tokio::test]
async fn lines_are_items_and_a_broken_one_is_its_own_problem() {
    let service = Setup::new().start().await;
    let client = service.client();
    let lines = "{\"type\": \"echo\", \"params\": {\"n\": 1}}\r\n\n\
        {broken\n\
        {\"type\": \"echo\", \"type\": \"echo\"}\n\
        {\"type\": \"echo\", \"params\": {\"n\": 1}}";
    let send = |media_type: &str, text: String| {
        let request = client.post(PATH).header("content-type", media_type);
        request.body(text).send()
    };
    let verdicts = verdicts(&send("application/x-ndjson; charset=utf-8", lines.to_owned()).await);
    let statuses: Vec<_> = verdicts
        .iter()
        .map(|v| v["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses[1..3], [400, 400]);
    assert_eq!(verdicts.len(), 4, "{verdicts:?}");
    for broken in &verdicts[1..3] {
        assert_eq!(broken["problem"]["code"], "invalid-json");
    }
    assert_eq!(verdicts[0]["task"]["id"], verdicts[3]["task"]["id"]);
    assert_eq!(verdicts[3]["task"]["matched_by"], "fingerprint");
}

#[tokio::test]
async fn a_batch_that_is_none_is_refused_as_a_whole() {
    let limits =
        "[limits]\nbatch_items_max = 3\nbatch_body_bytes_max = 2000\njson_body_bytes_max = 300\n";
    let service = Setup::new().config(limits).start().await;
    let client = service.client();
    let send = |media_type: &str, text: String| {
        let request = client.post(PATH).header("content-type", media_type);
        request.body(text).send()
    };
    let (json, ndjson) = ("application/json", "application/x-ndjson");
    for (media_type, text, status, code) in [
        (json, "", 400, "invalid-json"),
        (ndjson, "", 400, "invalid-json"),
        (json, "{\"type\": \"echo\"}", 400, "invalid-json"),
        (json, "[{\"type\": \"echo\"}", 400, "invalid-json"),
        (json, "[{\"type\": \"echo\"}] x", 400, "invalid-json"),
        (json, "[1, 2, 3, 4]", 413, "payload-too-large"),
        (ndjson, "1\n2\n3\n4\n", 413, "payload-too-large"),
        (
            json,
            &format!("[{}]", " ".repeat(2000)),
            413,
            "payload-too-large",
        ),
        ("text/plain", "[]", 415, "unsupported-media-type"),
        (
            "application/x-ndjson; charset=latin1",
            "1",
            415,
            "unsupported-media-type",
        ),
    ] {
        let reply = send(media_type, text.to_owned()).await;
        reply.problem(status, code);
    }
    client
        .get(PATH)
        .send()
        .await
        .problem(405, "method-not-allowed");
    let doubled = client.post(PATH).key("a").key("b").json(&json!([echo(1)]));
    doubled.send().await.problem(400, "idempotency-key-invalid");
    assert_eq!(client.stats().await["total_tasks"], 0);
    // An item is as large as a submission may be.
    let items = json!([{"type": "echo", "params": {"pad": "x".repeat(300)}}, echo(1)]);
    let verdicts = verdicts(&submit(&client, &items).await);
    assert_eq!(verdicts[0]["problem"]["code"], "payload-too-large");
    assert_eq!(verdicts[1]["status"], 202);
    let none = submit(&client, &json!([])).await.expect(200);
    assert_eq!(none.json(), json!({"items": []}));
}

#[tokio::test]
async fn a_key_too_long_for_its_items_and_a_key_that_is_required() {
    let config = "[task_types.keyed]\nrunner = { builtin = \"echo\" }\nrequire_key = true\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let items = json!([
        {"type": "keyed", "params": {"n": 1}},
        {"type": "keyed", "params": {"n": 2}, "idempotency_key": "own"},
    ]);
    let without = verdicts(&submit(&client, &items).await);
    assert_eq!(without[0]["problem"]["code"], "idempotency-key-missing");
    assert_eq!(without[1]["status"], 202);
    let long = "k".repeat(254);
    let with = client.post(PATH).key(&long).json(&items).send().await;
    let with = verdicts(&with);
    assert_eq!(with[0]["problem"]["code"], "idempotency-key-invalid");
    assert_eq!(with[1]["task"]["id"], without[1]["task"]["id"]);
    let fits = "k".repeat(253);
    let fits = client.post(PATH).key(&fits).json(&items).send().await;
    assert_eq!(verdicts(&fits)[0]["status"], 202);
}

#[tokio::test]
async fn a_batch_of_a_thousand_is_taken_and_one_more_is_not() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let mut lines = String::new();
    for n in 0..1000 {
        // 40 % duplicates.
        let n = if n < 600 { n } else { n - 600 };
        writeln!(lines, "{}", echo(n)).unwrap();
    }
    let send = |text: String| {
        let request = client
            .post(PATH)
            .header("content-type", "application/x-ndjson");
        request.body(text).send()
    };
    let first = verdicts(&send(lines.clone()).await);
    assert_eq!(first.len(), 1000);
    assert_eq!(ids(&first[600..]), ids(&first[..400]));
    let new = first.iter().filter(|v| v["task"]["deduplicated"] == false);
    assert_eq!(new.count(), 600);
    assert_eq!(ids(&verdicts(&send(lines.clone()).await)), ids(&first));
    let stats = client.stats().await;
    assert_eq!(stats["windows"]["all"]["accepted"], 600);
    assert_eq!(stats["windows"]["all"]["duplicates_by_fingerprint"], 1400);
    lines.push_str("{\"type\": \"echo\"}\n");
    send(lines).await.problem(413, "payload-too-large");
}

#[tokio::test]
async fn a_batch_belongs_to_its_user() {
    let service = Setup::new().start().await;
    let items = json!([{"type": "echo", "params": {"n": 1}, "idempotency_key": "k"}]);
    let [ann, bob] = ["ann", "bob"].map(|user| service.client().user(user));
    let anns = verdicts(&submit(&ann, &items).await);
    let bobs = verdicts(&submit(&bob, &items).await);
    assert_ne!(ids(&anns), ids(&bobs));
    assert_eq!(bobs[0]["task"]["user"], "bob");
    bob.get(&format!("/v1/tasks/{}", ids(&anns)[0]))
        .send()
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn a_replay_under_a_rule_that_is_gone_is_answered_in_a_batch_too() {
    let setup = Setup::new().config("[task_types.t]\nrunner = { builtin = \"echo\" }\n");
    let service = setup.start().await;
    let items = json!([{"type": "t", "params": {"n": 1}, "idempotency_key": "k"}]);
    let first = verdicts(&submit(&service.client(), &items).await);
    service.client().ended(ids(&first)[0]).await;
    let strict = "[task_types.t]\nrunner = { builtin = \"echo\" }\n\
        params_schema = { type = \"object\", required = [\"lang\"] }\n";
    let service = service.kill().await.config(strict).start().await;
    let client = service.client();
    let again = verdicts(&submit(&client, &items).await);
    assert_eq!(ids(&again), ids(&first));
    assert_eq!(again[0]["status"], 200);
    let other = json!([{"type": "t", "params": {"n": 2}, "idempotency_key": "k"}, {"type": "t"}]);
    let refused = verdicts(&submit(&client, &other).await);
    assert!(refused.iter().all(|v| v["status"] == 422), "{refused:?}");
}
