//! The header that names an intent.

use serde_json::json;

use crate::support::Setup;
use crate::support::wire::Wire;

#[tokio::test]
async fn both_spellings_name_the_same_key() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"n": 1}});
    let id = client.submit(&task, "order-42").await.expect(202).id();
    for spelling in ["\"order-42\"", "\"order-42\";v=1", "  order-42  "] {
        let replay = client.submit(&task, spelling).await;
        assert_eq!(replay.id(), id, "{spelling}");
        assert_eq!(
            replay.header("idempotent-replayed"),
            Some("true"),
            "{spelling}"
        );
    }
    // The name of the field is not case-sensitive, the key is.
    let upper = client
        .post("/v1/tasks")
        .header("IDEMPOTENCY-KEY", "order-42")
        .json(&task);
    assert_eq!(
        upper.send().await.header("idempotent-replayed"),
        Some("true")
    );
    let other = client.submit(&task, "ORDER-42").await;
    assert_eq!(other.json()["matched_by"], "fingerprint");
}

#[tokio::test]
async fn what_is_no_key_is_refused_before_anything_is_recorded() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo"});
    let long = "k".repeat(256);
    let bad: [&[u8]; 12] = [
        b"",
        b"\"\"",
        b"{}",
        b"a b",
        b"a,b",
        b"\"a\", \"b\"",
        b"\"open",
        b"\"a\\x\"",
        "ключ".as_bytes(),
        b"a\tb",
        b"\xff",
        long.as_bytes(),
    ];
    for key in bad {
        let request = client
            .post("/v1/tasks")
            .header_bytes("idempotency-key", key)
            .json(&task);
        request.send().await.problem(400, "idempotency-key-invalid");
    }
    let twice = client
        .post("/v1/tasks")
        .key("a")
        .key("a")
        .json(&task)
        .send()
        .await;
    twice.problem(400, "idempotency-key-invalid");
    let upload = client
        .post("/v1/files?type=echo")
        .key("{}")
        .body("x")
        .send()
        .await;
    upload.problem(400, "idempotency-key-invalid");
    assert_eq!(client.stats().await["total_tasks"], 0);
    client.submit(&task, &"k".repeat(255)).await.expect(202);
}

#[tokio::test]
async fn a_line_break_in_a_key_never_reaches_the_service_as_a_key() {
    let service = Setup::new().start().await;
    let mut wire = Wire::connect(service.address).await;
    let body = r#"{"type":"echo"}"#;
    wire.send(format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Idempotency-Key: \"a\r\nX-Injected: b\"\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
    .await;
    assert_eq!(wire.answer().await.unwrap().status, 400);
    assert_eq!(service.client().stats().await["total_tasks"], 0);
}

#[tokio::test]
async fn a_type_may_require_a_key() {
    let config = "[task_types.strict]\nrunner = { builtin = \"echo\" }\nrequire_key = true\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let task = json!({"type": "strict"});
    client
        .submit_keyless(&task)
        .await
        .problem(400, "idempotency-key-missing");
    let upload = client.post("/v1/files?type=strict").body("x").send().await;
    upload.problem(400, "idempotency-key-missing");
    client.submit(&task, "k").await.expect(202);
}

#[tokio::test]
async fn a_key_is_ignored_where_nothing_is_submitted() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let id = client.submit(&json!({"type": "echo"}), "k").await.id();
    let path = format!("/v1/tasks/{id}");
    client.get(&path).key("not a key").send().await.expect(200);
    client
        .post(&format!("{path}/cancel"))
        .key("k")
        .send()
        .await
        .expect(200);
    client.delete(&path).key("{}").send().await.expect(204);
}

#[tokio::test]
async fn one_key_is_shared_by_all_ways_of_submitting() {
    let service = Setup::new().start().await;
    let client = service.client();
    client
        .submit(&json!({"type": "echo"}), "k")
        .await
        .expect(202);
    let upload = client
        .post("/v1/files?type=echo")
        .key("k")
        .body("x")
        .send()
        .await;
    let problem = upload.problem(422, "idempotency-key-reused");
    assert_eq!(problem["differs"], json!(["file"]));
}

#[tokio::test]
async fn a_replay_is_compared_under_the_rule_of_its_time() {
    let before = "[task_types.changing]\nrunner = { builtin = \"echo\" }\ndedup = { ignore = [\"/trace\"] }\n";
    let service = Setup::new().config(before).start().await;
    let task = json!({"type": "changing", "params": {"n": 1, "trace": "a"}});
    let id = service.client().submit(&task, "k").await.id();
    service.client().ended(&id).await;
    // Another version, another rule, and a schema that would refuse what was accepted then.
    let after = "[task_types.changing]\nrunner = { builtin = \"echo\" }\nversion = 2\n\
        params_schema = { type = \"object\", required = [\"new\"] }\n";
    let service = service.kill().await.config(after).start().await;
    let same = json!({"type": "changing", "params": {"n": 1, "trace": "b"}});
    let replay = service.client().submit(&same, "k").await.expect(200);
    assert_eq!(replay.id(), id);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    let new = service.client().submit(&same, "other").await;
    new.problem(422, "validation-failed");
    // Even when the type is gone.
    let service = service.kill().await.config("").start().await;
    let replay = service.client().submit(&same, "k").await.expect(200);
    assert_eq!(replay.id(), id);
    let other = json!({"type": "changing", "params": {"n": 2}});
    service
        .client()
        .submit(&other, "k")
        .await
        .problem(422, "unknown-task-type");
}
