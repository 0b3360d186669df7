//! What is declared about task types, shown, and read anew while the service runs.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::{Client, Service, Setup, World};

const ECHO: &str = "runner = { builtin = \"echo\" }";

async fn declared(client: &Client, name: &str) -> Option<Value> {
    let list = client.get("/v1/task-types").send().await.expect(200).json();
    let items = list["items"].as_array().unwrap().clone();
    items.into_iter().find(|item| item["name"] == name)
}

/// Writes the file anew, and waits until `shows` finds what it looks for.
async fn reload(service: &Service, config: &str, shows: impl AsyncFn() -> bool) {
    service.setup().clone().config(config);
    service.signal(Signal::HUP);
    until("the file to be read", async || shows().await.then_some(())).await;
}

#[tokio::test]
async fn a_hang_up_reads_the_task_types_anew_and_loses_nothing() {
    let world = World::new();
    let gated = |version: u32| {
        let gate = world.gate("gate");
        format!("[task_types.gated]\nrunner = {{ {gate} }}\nversion = {version}\n")
    };
    let service = Setup::new().config(&gated(1)).start().await;
    let client = service.client();
    let task = json!({"type": "gated", "params": {"n": 1}});
    let running = client.submit(&task, "k").await.expect(202).id();
    world.runs_reach(1).await;
    client
        .submit_keyless(&json!({"type": "fresh"}))
        .await
        .problem(422, "unknown-task-type");

    let next = format!("{}[task_types.fresh]\n{ECHO}\n", gated(2));
    reload(&service, &next, async || {
        declared(&client, "fresh").await.is_some()
    })
    .await;
    assert_eq!(declared(&client, "gated").await.unwrap()["version"], 2);
    // The new type has a worker.
    let fresh = client.submit_keyless(&json!({"type": "fresh"})).await.id();
    assert_eq!(client.ended(&fresh).await["state"], "succeeded");
    // The key is compared under the rule that it came with; the same content under the new version is new.
    let replay = client.submit(&task, "k").await.expect(202);
    assert_eq!(replay.id(), running);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    let anew = client.submit(&task, "k2").await.expect(202);
    assert_eq!(anew.json()["deduplicated"], false);
    // What ran goes on, and ends once.
    world.open_gate();
    assert_eq!(client.ended(&running).await["attempt"], 1);
    client.ended(&anew.id()).await;
    assert_eq!(world.runs().len(), 2);
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing_and_its_line_is_logged() {
    let service = Setup::new()
        .config(&format!("[task_types.t]\n{ECHO}\nversion = 3\n"))
        .start()
        .await;
    let client = service.client();
    for (config, said) in [
        ("[task_types.t]\nversion = = 4\n", "line 2, column 11"),
        (
            "[task_types.t]\nrunner = { builtin = \"echo\" }\nversion = 4\npriority = 11\n",
            "line 4, column 1: task type `t`: priority is 0 (first) to 9 (last)",
        ),
        (
            "[task_types.t]\nrunner = { builtin = \"echo\" }\nparams_schema = \"missing.json\"\n",
            "line 3, column 1: task type `t`: ",
        ),
    ] {
        reload(&service, config, async || service.log_text().contains(said)).await;
        assert_eq!(declared(&client, "t").await.unwrap()["version"], 3);
    }
    assert!(
        service
            .log_text()
            .contains("the task types stay as they were")
    );
    let id = client.submit_keyless(&json!({"type": "t"})).await.id();
    assert_eq!(client.ended(&id).await["state"], "succeeded");
}

#[tokio::test]
async fn tasks_of_a_type_that_is_gone_wait_until_it_is_back() {
    let config = format!("[task_types.t]\n{ECHO}\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let later = json!({"type": "t", "delay_seconds": 1, "params": {"n": 1}});
    let id = client.submit(&later, "k").await.expect(202).id();
    reload(&service, "", async || {
        declared(&client, "t").await.is_none()
    })
    .await;
    let refused = client.submit_keyless(&json!({"type": "t"})).await;
    refused.problem(422, "unknown-task-type");
    // Its key is answered all the same.
    assert_eq!(client.submit(&later, "k").await.expect(202).id(), id);
    client.in_state(&id, "queued").await;
    client.echo(json!({"another": "type runs on"})).await;
    assert_eq!(client.task(&id).await["state"], "queued");
    reload(&service, &config, async || {
        declared(&client, "t").await.is_some()
    })
    .await;
    assert_eq!(client.ended(&id).await["state"], "succeeded");
}

#[tokio::test]
async fn what_runs_counts_against_the_bounds_that_are_read_anew() {
    let world = World::new();
    let config = |version: u32| {
        let gate = world.gate("gate");
        format!("[task_types.one]\nrunner = {{ {gate} }}\nconcurrency = 1\nversion = {version}\n")
    };
    let service = Setup::new().config(&config(1)).start().await;
    let client = service.client();
    let submit = async |n: u32| {
        let task = json!({"type": "one", "params": {"n": n}});
        client.submit_keyless(&task).await.id()
    };
    let first = submit(1).await;
    world.runs_reach(1).await;
    reload(&service, &config(2), async || {
        declared(&client, "one").await.unwrap()["version"] == 2
    })
    .await;
    let second = submit(2).await;
    // By the time that these have run, the second one would have begun, too.
    for n in 0..3 {
        client.echo(json!({"n": n})).await;
    }
    assert_eq!(client.task(&second).await["state"], "queued");
    assert_eq!(world.runs().len(), 1);
    world.open_gate();
    client.ended(&first).await;
    client.ended(&second).await;
    assert_eq!(world.runs().len(), 2);
}

#[tokio::test]
async fn the_contract_of_each_type_is_shown_and_documented() {
    let config = "[task_types.thumbnail]\n\
        runner = { command = [\"secret-program\"] }\n\
        params_schema = { type = \"object\", properties = { size = { \"$ref\" = \"#/$defs/size\" } }, \"$defs\" = { size = { type = \"integer\" } } }\n\
        version = 2\n\
        require_key = true\n\
        dedup = { ignore = [\"/trace_id\"], window_seconds = 60, on_older_version = \"reuse\" }\n\
        retry = { max_attempts = 2 }\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let shown = declared(&client, "thumbnail").await.unwrap();
    assert_eq!(shown["version"], 2);
    assert_eq!(shown["require_key"], true);
    assert_eq!(shown["dedup"]["ignore"], json!(["/trace_id"]));
    assert_eq!(shown["dedup"]["window_seconds"], 60);
    assert_eq!(shown["dedup"]["on_older_version"], "reuse");
    assert_eq!(shown["retry"]["max_attempts"], 2);
    let document = async || client.get("/openapi.json").send().await.expect(200).json();
    let first = document().await;
    let documented = |document: &Value, name: &str| {
        let types = document["x-task-types"].as_array().unwrap();
        types.iter().find(|made| made["name"] == name).cloned()
    };
    let mut contract = documented(&first, "thumbnail").unwrap();
    let reference = contract["params_schema"]["$ref"].as_str().unwrap();
    let schema = first.pointer(reference.trim_start_matches('#')).unwrap();
    assert_eq!(schema["properties"]["size"]["$ref"], "#/$defs/size");
    // References within it start at its own root.
    assert!(schema["$id"].is_string(), "{schema}");
    contract["params_schema"] = shown["params_schema"].clone();
    // What is paused now is no part of the contract.
    contract["paused"] = shown["paused"].clone();
    assert_eq!(contract, shown);
    assert!(!first.to_string().contains("secret-program"));
    reload(&service, "", async || {
        documented(&document().await, "thumbnail").is_none()
    })
    .await;
}

#[tokio::test]
async fn a_task_of_an_older_version_answers_where_the_type_says_so() {
    let config = |version: u32, word: &str| {
        format!(
            "[task_types.t]\n{ECHO}\nversion = {version}\ndedup = {{ on_older_version = \"{word}\" }}\n"
        )
    };
    let service = Setup::new().config(&config(1, "rerun")).start().await;
    let client = service.client();
    let task = json!({"type": "t", "params": {"n": 1}});
    let old = client.submit_keyless(&task).await.id();
    client.ended(&old).await;
    let reread = async |version: u32, word: &str| {
        reload(&service, &config(version, word), async || {
            let shown = declared(&client, "t").await.unwrap();
            shown["version"] == version && shown["dedup"]["on_older_version"] == word
        })
        .await;
    };
    reread(2, "reuse").await;
    let reused = client.submit(&task, "k").await.expect(200);
    assert_eq!(reused.id(), old);
    assert_eq!(reused.json()["matched_by"], "fingerprint");
    reread(2, "rerun").await;
    let anew = client.submit_keyless(&task).await.expect(202);
    assert_ne!(anew.id(), old);
}

#[tokio::test]
async fn a_duplicate_is_told_what_matched_since_when_and_until_when() {
    let world = World::new();
    let config = format!(
        "[task_types.gated]\nrunner = {{ {} }}\n",
        world.gate("gate")
    );
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let task = json!({"type": "gated", "params": {"n": 1}});
    let first = client.submit(&task, "k").await.expect(202).json();
    for member in ["matched_since", "matched_until"] {
        assert_eq!(first.get(member), None, "{first}");
    }
    let by_key = client.submit(&task, "k").await.expect(202).json();
    assert_eq!(by_key["matched_since"], first["created_at"]);
    assert_eq!(by_key.get("matched_until"), None, "{by_key}");
    world.open_gate();
    let ended = client.ended(first["id"].as_str().unwrap()).await;
    let by_key = client.submit(&task, "k").await.expect(200);
    let expires = by_key.header("idempotency-expires").unwrap().to_owned();
    assert_eq!(by_key.json()["matched_until"], expires.as_str());
    let by_content = client.submit_keyless(&task).await.expect(200).json();
    assert_eq!(by_content["matched_by"], "fingerprint");
    assert_eq!(by_content["matched_since"], first["created_at"]);
    assert_eq!(by_content["matched_until"], ended["dedup_expires_at"]);
    let check = client.post("/v1/tasks/check").json(&task).send().await;
    let check = check.expect(200).json();
    assert_eq!(check["expires_at"], ended["dedup_expires_at"]);
    assert_eq!(check["task"]["matched_until"], ended["dedup_expires_at"]);
    let mut strict = task.clone();
    strict["dedup"] = json!({"mode": "reject"});
    let rejected = client.submit_keyless(&strict).await;
    let rejected = rejected.problem(409, "duplicate-submission");
    assert_eq!(rejected["matched_by"], "fingerprint");
    assert_eq!(rejected["matched_since"], first["created_at"]);
    assert_eq!(rejected["matched_until"], ended["dedup_expires_at"]);
}
