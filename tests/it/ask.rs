//! Asking about tasks.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Setup, World};

fn gated(world: &World) -> Setup {
    let runner = world.gate("gate");
    Setup::new().config(&format!("[task_types.gated]\nrunner = {{ {runner} }}\n"))
}

#[tokio::test]
async fn a_task_carries_its_version_and_says_when_to_ask_again() {
    let world = World::new();
    let service = gated(&world).start().await;
    let client = service.client();
    let id = client.submit(&json!({"type": "gated"}), "k").await.id();
    world.runs_reach(1).await;
    let path = format!("/v1/tasks/{id}");
    let running = client.get(&path).send().await.expect(200);
    assert!(
        running
            .header("retry-after")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 0
    );
    let etag = running.header("etag").unwrap().to_owned();
    let same = client
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await
        .expect(304);
    assert!(same.body.is_empty());
    assert_eq!(same.header("etag"), Some(etag.as_str()));
    world.open_gate();
    client.ended(&id).await;
    let changed = client
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await
        .expect(200);
    assert_ne!(changed.header("etag"), Some(etag.as_str()));
    assert_eq!(changed.header("retry-after"), None);
    let etag = changed.header("etag").unwrap();
    for value in [
        etag.to_owned(),
        format!("\"x\", {etag}"),
        format!("W/{etag}"),
        "*".to_owned(),
    ] {
        let reply = client
            .get(&path)
            .header("if-none-match", &value)
            .send()
            .await;
        assert_eq!(reply.status, 304, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_answered_by_the_end_and_not_by_a_timer() {
    let world = World::new();
    let service = gated(&world).start().await;
    let client = service.client();
    let id = client.submit(&json!({"type": "gated"}), "k").await.id();
    world.runs_reach(1).await;
    let path = format!("/v1/tasks/{id}");
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (client, path) = (client.clone(), path.clone());
            tokio::spawn(async move { client.get(&path).wait(50).send().await })
        })
        .collect();
    let short = client.get(&path).wait(1).send().await.expect(200);
    assert_eq!(short.json()["state"], "running");
    assert_eq!(short.header("preference-applied"), Some("wait=1"));
    world.open_gate();
    for waiting in waiting {
        let answered = waiting.await.unwrap().expect(200);
        assert_eq!(answered.json()["state"], "succeeded");
        assert_eq!(answered.header("preference-applied"), Some("wait=50"));
    }
}

#[tokio::test]
async fn a_result_stands_alone() {
    let world = World::new();
    let service = gated(&world).start().await;
    let client = service.client();
    let id = client.submit(&json!({"type": "gated"}), "k").await.id();
    let path = format!("/v1/tasks/{id}/result");
    let early = client.get(&path).send().await.expect(202);
    assert!(early.header("retry-after").is_some());
    world.open_gate();
    client.ended(&id).await;
    let result = client.get(&path).send().await.expect(200);
    assert_eq!(result.header("content-type"), Some("application/json"));
    assert_eq!(result.json(), json!({"ran": true}));

    let failed = client.echo(json!({"fail_permanently": true})).await;
    let path = format!("/v1/tasks/{}/result", failed["id"].as_str().unwrap());
    client.get(&path).send().await.problem(409, "task-failed");
    let unknown = format!("/v1/tasks/{}/result", "0".repeat(36));
    client.get(&unknown).send().await.problem(404, "not-found");
}

#[tokio::test]
async fn an_expired_result_is_gone_and_not_unknown() {
    let config = r#"
        [task_types.brief]
        runner = { builtin = "echo" }
        dedup = { window_seconds = 1 }
        retention = { key_seconds = 1, result_seconds = 1 }
    "#;
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "brief"})).await.id();
    client.ended(&id).await;
    let path = format!("/v1/tasks/{id}/result");
    let gone = crate::support::deadline::until("the result to expire", async || {
        let reply = client.get(&path).send().await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    gone.problem(410, "result-expired");
    assert_eq!(client.task(&id).await["state"], "succeeded");
}

#[tokio::test]
async fn a_large_result_is_read_apart() {
    let world = World::new();
    let script = "awk 'BEGIN { printf \"\\\"\"; for (i = 0; i < 2000000; i++) printf \"x\"; print \"\\\"\" }'";
    let runner = world.command("large", script);
    let config = format!("[task_types.large]\nrunner = {{ {runner} }}\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "large"})).await.id();
    let task = client.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task}");
    assert!(
        task.to_string().len() < 100_000,
        "the task carries the whole result"
    );
    let result = client
        .get(&format!("/v1/tasks/{id}/result"))
        .send()
        .await
        .expect(200);
    assert_eq!(result.json().as_str().unwrap().len(), 2_000_000);
}

#[tokio::test]
async fn the_ledger_names_every_suppressed_duplicate() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"d": 1}});
    let id = client.submit(&task, "k").await.id();
    client.ended(&id).await;
    client.submit(&task, "k").await.expect(200);
    let request = client
        .post("/v1/tasks")
        .key("other")
        .header("x-request-id", "my-request");
    request.json(&task).send().await.expect(200);
    let items = crate::support::deadline::until("the ledger", async || {
        let path = format!("/v1/tasks/{id}/duplicates");
        let ledger = client.get(&path).send().await.expect(200).json();
        let items = ledger["items"].as_array().unwrap().clone();
        (items.len() == 2).then_some(items)
    })
    .await;
    assert_eq!(items[0]["matched_by"], "fingerprint");
    assert_eq!(items[0]["key"], "other");
    assert_eq!(items[0]["request_id"], "my-request");
    assert_eq!(items[1]["matched_by"], "idempotency_key");
    for item in &items {
        assert!(
            item["at"].is_string() && item["seconds_saved"].is_number(),
            "{item}"
        );
        assert_eq!(item["bytes_saved"], 0);
    }
    assert_eq!(client.task(&id).await["duplicates"], 2);
}

#[tokio::test]
async fn a_list_pages_stably_while_tasks_come_in() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let mut made = Vec::new();
    for n in 0..23 {
        let task = json!({"type": "echo", "params": {"n": n}});
        made.push(client.submit_keyless(&task).await.id());
    }
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client
            .get(&format!("/v1/tasks?limit=5{cursor}"))
            .send()
            .await
            .expect(200)
            .json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 5);
        listed.extend(
            items
                .iter()
                .map(|task| task["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
        client
            .submit_keyless(&json!({"type": "echo", "params": {"late": listed.len()}}))
            .await;
    }
    made.reverse();
    assert_eq!(listed, made);
}

#[tokio::test]
async fn a_list_is_filtered_by_what_is_asked() {
    let service = Setup::new().start().await;
    let client = service.client();
    let red = json!({"type": "echo", "params": {"n": 1}, "tags": {"team": "red"}});
    let id = client.submit(&red, "the-key").await.id();
    let done = client.ended(&id).await;
    let failed = client.echo(json!({"fail_permanently": true})).await;
    let ids = async |query: &str| -> BTreeSet<String> {
        let items = client.list(query).await;
        items
            .iter()
            .map(|task| task["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let one = BTreeSet::from([id.clone()]);
    assert_eq!(ids("state=succeeded").await, one);
    assert_eq!(ids("key=the-key").await, one);
    assert_eq!(ids("tag=team:red").await, one);
    assert_eq!(ids("tag=team").await, one);
    assert_eq!(ids("tag=team:blue").await, BTreeSet::new());
    let fingerprint = done["fingerprint"].as_str().unwrap();
    assert_eq!(ids(&format!("fingerprint={fingerprint}")).await, one);
    let failed = BTreeSet::from([failed["id"].as_str().unwrap().to_owned()]);
    assert_eq!(ids("type=echo&state=failed").await, failed);
    assert_eq!(ids("").await.len(), 2);
    for bad in [
        "state=nonsense",
        "limit=0",
        "limit=x",
        "cursor=%00",
        "fingerprint=v9:x",
        "surprise=1",
    ] {
        let reply = client.get(&format!("/v1/tasks?{bad}")).send().await;
        assert!(matches!(reply.status, 400 | 422), "{bad}: {}", reply.text());
    }
}

#[tokio::test]
async fn task_types_show_their_contract() {
    let service = Setup::new().start().await;
    let types = service
        .client()
        .get("/v1/task-types")
        .send()
        .await
        .expect(200)
        .json();
    let items = types["items"]
        .as_array()
        .or(types.as_array())
        .expect("a list")
        .clone();
    let names: BTreeSet<_> = items.iter().map(|t| t["name"].as_str().unwrap()).collect();
    for name in ["echo", "process_file", "process_document"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

#[tokio::test]
async fn ids_that_cannot_be_are_unknown() {
    let service = Setup::new().start().await;
    let client = service.client();
    for id in [
        "x",
        "..%2f..",
        &"0".repeat(36),
        &"z".repeat(36),
        "%00",
        &"a".repeat(4000),
    ] {
        let path = format!("/v1/tasks/{id}");
        client.get(&path).send().await.problem(404, "not-found");
        client.delete(&path).send().await.problem(404, "not-found");
        client
            .post(&format!("{path}/cancel"))
            .send()
            .await
            .problem(404, "not-found");
    }
}
