//! What makes two submissions the same, through HTTP.

use serde_json::{Value, json};

use crate::support::{Client, Setup};

async fn fingerprint(client: &Client, text: &str) -> String {
    let reply = client
        .post("/v1/tasks")
        .json_text(text.to_owned())
        .send()
        .await;
    assert!(
        matches!(reply.status, 200 | 202),
        "{text}: {}",
        reply.text()
    );
    reply.json()["fingerprint"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_spelling_does_not_matter_and_the_values_do() {
    let service = Setup::new().start().await;
    let client = service.client();
    let base = r#"{"type":"echo","params":{"a":1,"b":["x",{"c":null}],"ü":-0.0}}"#;
    let base = fingerprint(&client, base).await;
    for same in [
        r#" { "params" : { "ü" : 0 , "b" : [ "x" , { "c" : null } ] , "a" : 1 } , "type" : "echo" } "#,
        r#"{"type":"echo","params":{"a":1.0,"b":["x",{"c":null}],"\u00fc":0e5}}"#,
        r#"{"type":"\u0065cho","params":{"a":10e-1,"b":["\u0078",{"c":null}],"ü":0}}"#,
        r#"{"type":"echo","priority":1,"tags":{"t":"x"},"params":{"a":1,"b":["x",{"c":null}],"ü":0}}"#,
        r#"{"type":"echo","delay_seconds":0,"params":{"a":1,"b":["x",{"c":null}],"ü":0}}"#,
    ] {
        assert_eq!(fingerprint(&client, same).await, base, "{same}");
    }
    for other in [
        r#"{"type":"echo","params":{"a":2,"b":["x",{"c":null}],"ü":0}}"#,
        r#"{"type":"echo","params":{"a":"1","b":["x",{"c":null}],"ü":0}}"#,
        r#"{"type":"echo","params":{"a":1,"b":[{"c":null},"x"],"ü":0}}"#,
        r#"{"type":"echo","params":{"a":1,"b":["x",{}],"ü":0}}"#,
        r#"{"type":"echo","params":{"a":1,"b":["x",{"c":null}],"u\u0308":0}}"#,
        r#"{"type":"echo","params":{"a":1,"b":["x",{"c":null}],"ü":0},"run_at":"2001-01-01T00:00:00Z"}"#,
    ] {
        assert_ne!(fingerprint(&client, other).await, base, "{other}");
    }
    let of_bob = client.user("bob");
    let same = r#"{"type":"echo","params":{"a":1,"b":["x",{"c":null}],"ü":0}}"#;
    assert_ne!(fingerprint(&of_bob, same).await, base);
}

async fn upload(client: &Client, query: &str, bytes: Vec<u8>) -> Value {
    let reply = client
        .post(&format!("/v1/files?type=echo{query}"))
        .body(bytes)
        .send()
        .await;
    assert!(matches!(reply.status, 200 | 202), "{}", reply.text());
    reply.json()
}

#[tokio::test]
async fn every_byte_of_a_large_file_matters_and_its_name_does_not() {
    const SIZE: usize = 50 * 1024 * 1024;
    let service = Setup::new().start().await;
    let client = service.client();
    let mut bytes: Vec<u8> = (0..SIZE).map(|n| (n / 7 + n / 4099) as u8).collect();
    let first = upload(&client, "&filename=a.bin", bytes.clone()).await;
    let again = upload(&client, "&filename=b.bin", bytes.clone()).await;
    assert_eq!(again["id"], first["id"]);
    let mut seen = vec![first["fingerprint"].clone()];
    // At the ends, at the seams of common buffer sizes, and at places that a sampling hash would pass over.
    for at in [
        0,
        1,
        65_535,
        65_536,
        1_048_577,
        SIZE / 3 + 17,
        SIZE / 2,
        SIZE - 2,
        SIZE - 1,
    ] {
        bytes[at] ^= 1;
        let changed = upload(&client, "", bytes.clone()).await;
        assert!(
            !seen.contains(&changed["fingerprint"]),
            "a change at byte {at} was not seen"
        );
        seen.push(changed["fingerprint"].clone());
        bytes[at] ^= 1;
    }
    let mut shorter = bytes.clone();
    shorter.pop();
    assert!(!seen.contains(&upload(&client, "", shorter).await["fingerprint"]));
    bytes.push(0);
    assert!(!seen.contains(&upload(&client, "", bytes).await["fingerprint"]));
}

#[tokio::test]
async fn a_type_may_count_the_name_or_drop_a_param() {
    let config = r#"
        [task_types.named]
        runner = { builtin = "echo" }
        dedup = { include_file_name = true }
        [task_types.traced]
        runner = { builtin = "echo" }
        dedup = { ignore = ["/trace_id", "/deep/trace"] }
        [task_types.second]
        runner = { builtin = "echo" }
        version = 2
    "#;
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let named = async |name: &str| {
        let path = format!("/v1/files?type=named&filename={name}");
        client.post(&path).body("same").send().await.id()
    };
    assert_eq!(named("a").await, named("a").await);
    assert_ne!(named("a").await, named("b").await);
    let traced = async |params: Value| {
        client
            .submit_keyless(&json!({"type": "traced", "params": params}))
            .await
            .id()
    };
    let base = traced(json!({"n": 1, "trace_id": "x", "deep": {"trace": 1}})).await;
    assert_eq!(traced(json!({"n": 1, "deep": {"trace": 2}})).await, base);
    assert_ne!(traced(json!({"n": 1, "deep": {}, "other": 1})).await, base);
    assert_ne!(traced(json!({"n": 2, "deep": {}})).await, base);
    let one = fingerprint(&client, r#"{"type":"echo"}"#).await;
    assert_ne!(fingerprint(&client, r#"{"type":"second"}"#).await, one);
}

#[tokio::test]
async fn fingerprints_do_not_change_with_a_restart_or_a_release() {
    let service = Setup::new().start().await;
    let text = r#"{"type":"echo","params":{"a":[1,"ü"]}}"#;
    // As the first release made it: to change it makes every client's repeat a new task.
    let golden = golden_fingerprint();
    assert_eq!(fingerprint(&service.client(), text).await, golden);
    let service = service.kill().await.start().await;
    assert_eq!(fingerprint(&service.client(), text).await, golden);
}

/// Made here from its definition: lengths of eight bytes in front of every field.
fn golden_fingerprint() -> String {
    let fields: [&[u8]; 7] = [
        b"justonce fingerprint v1",
        b"anonymous",
        b"type",
        b"echo",
        &1u32.to_be_bytes(),
        b"now",
        "{\"a\":[1,\"ü\"]}".as_bytes(),
    ];
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend((field.len() as u64).to_be_bytes());
        bytes.extend(field);
    }
    format!("v1:{}", justonce::domain::digest::Sha256Digest::of(&bytes))
}
