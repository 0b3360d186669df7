//! Task types that a service of the operator's runs: it gets the task over HTTP.

use std::time::Duration;

use justonce::domain::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::outside::{Does, Outside, says};
use crate::support::{Client, Reply, Service, Setup};

/// A service with a type `remote` that `outside` runs.
async fn service(outside: &Outside, more: &str) -> Service {
    let url = outside.url("/run?a=1");
    let config = format!(
        "[egress]\nallow = [\"127.0.0.1\"]\n\
         [task_types.remote]\nrunner = {{ http = \"{url}\" }}\n{more}\n"
    );
    Setup::new().config(&config).start().await
}

const AT_ONCE: &str = "retry = { first_delay_seconds = 0.02 }";

#[tokio::test]
async fn the_service_gets_the_task_and_its_answer_is_the_result() {
    let outside = Outside::start(|_, _| says(200, "", "{\"pages\": 3}")).await;
    let service = service(&outside, "").await;
    let client = service.client().user("u1");
    let task = json!({"type": "remote", "params": {"lang": "de"}});
    let id = client.submit(&task, "order-1").await.id();
    let done = client.ended(&id).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(done["result"], json!({"pages": 3}));
    let seen = outside.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path.as_str()),
        ("POST", "/run?a=1")
    );
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(
        seen[0].header("idempotency-key"),
        Some(format!("\"{id}\"").as_str())
    );
    let got = seen[0].json();
    assert_eq!(got["id"], id);
    assert_eq!(
        (&got["type"], &got["user"]),
        (&json!("remote"), &json!("u1"))
    );
    assert_eq!(
        (&got["attempt"], &got["params"]),
        (&json!(1), &json!({"lang": "de"}))
    );
    assert_eq!(got["idempotency_key"], "order-1");
    assert!(
        got["fencing_token"].is_u64() && got["lease_id"].is_string(),
        "{got}"
    );
    let types = client.get("/v1/task-types").send().await.expect(200).json();
    let items = types["items"].as_array().unwrap();
    let shown = items.iter().find(|item| item["name"] == "remote").unwrap();
    assert_eq!(shown["runner"], "http");
    assert!(!types.to_string().contains("/run?a=1"), "the URL is shown");
}

#[tokio::test]
async fn a_file_is_described_without_the_paths_of_this_machine() {
    let outside = Outside::start(|_, _| says(204, "", "")).await;
    let service = service(&outside, "").await;
    let client = service.client();
    let upload = client
        .post("/v1/files?type=remote&filename=a.txt")
        .body("bytes")
        .send()
        .await;
    let done = client.ended(&upload.id()).await;
    assert_eq!(
        (&done["state"], &done["result"]),
        (&json!("succeeded"), &Value::Null)
    );
    let got = outside.seen()[0].json();
    assert_eq!(
        (&got["file"]["name"], &got["file"]["size"]),
        (&json!("a.txt"), &json!(5))
    );
    assert_eq!(got["file"].get("path"), None);
}

#[tokio::test]
async fn statuses_say_whether_to_try_again() {
    let outside = Outside::start(|seen, _| {
        let status = seen.json()["params"]["status"].as_u64().unwrap();
        let problem = json!({"detail": "the reason\r\nof the service"}).to_string();
        says(
            status.try_into().unwrap(),
            "location: /elsewhere\r\n",
            problem,
        )
    })
    .await;
    let more = "retry = { max_attempts = 2, first_delay_seconds = 0.02 }";
    let service = service(&outside, more).await;
    let client = service.client();
    for (status, attempts) in [
        (400, 1),
        (401, 1),
        (404, 1),
        (409, 1),
        (410, 1),
        (422, 1),
        (301, 1),
        (307, 1),
        (408, 2),
        (425, 2),
        (429, 2),
        (500, 2),
        (502, 2),
        (503, 2),
    ] {
        let task = json!({"type": "remote", "params": {"status": status}});
        let id = client.submit_keyless(&task).await.id();
        let failed = client.ended(&id).await;
        assert_eq!(failed["state"], "failed", "{status}");
        assert_eq!(failed["attempt"], attempts, "{status}: {failed}");
        assert_eq!(failed["error"]["permanent"], attempts == 1, "{status}");
        assert_eq!(failed["error"]["code"], "http-status");
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(message.contains(&status.to_string()), "{message}");
        assert!(message.ends_with("the reasonof the service"), "{message}");
    }
    assert!(
        outside.seen().iter().all(|seen| seen.path == "/run?a=1"),
        "a redirect was followed"
    );
}

#[tokio::test]
async fn broken_connections_are_retried_with_the_same_key_and_a_newer_token() {
    let outside = Outside::start(|_, before| match before {
        0 => Does::Says(Vec::new()),
        1 => Does::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"cut".to_vec()),
        _ => says(200, "", "7"),
    })
    .await;
    let service = service(&outside, AT_ONCE).await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "remote"})).await.id();
    let done = client.ended(&id).await;
    assert_eq!(
        (&done["state"], &done["attempt"], &done["result"]),
        (&json!("succeeded"), &json!(3), &json!(7))
    );
    let seen = outside.seen();
    let keys: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("idempotency-key").unwrap())
        .collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let tokens: Vec<_> = seen
        .iter()
        .map(|seen| seen.json()["fencing_token"].as_u64().unwrap())
        .collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[tokio::test]
async fn a_service_that_is_down_costs_retries_and_nobody_else() {
    let outside = Outside::start(|_, _| says(200, "", "1")).await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let config = format!(
        "[egress]\nallow = [\"127.0.0.1\"]\n\
         [task_types.down]\nrunner = {{ http = \"http://{gone}/\" }}\nretry = {{ first_delay_seconds = 600 }}\n\
         [task_types.up]\nrunner = {{ http = \"{}\" }}\n",
        outside.url("/")
    );
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let mut waiting = Vec::new();
    for n in 0..20 {
        let down = json!({"type": "down", "params": {"n": n}});
        waiting.push(client.user("one").submit_keyless(&down).await.id());
    }
    let other = client.user("other");
    let id = other.submit_keyless(&json!({"type": "up"})).await.id();
    assert_eq!(other.ended(&id).await["state"], "succeeded");
    for id in waiting {
        let task = client.user("one").in_state(&id, "retrying").await;
        assert_eq!(task["error"]["code"], "connection-failed", "{task}");
    }
}

#[tokio::test]
async fn a_service_that_hangs_leaves_room_for_the_others() {
    let hangs = Outside::start(|_, _| Does::Waits(Vec::new())).await;
    let outside = Outside::start(|_, _| says(200, "", "1")).await;
    let config = format!(
        "[egress]\nallow = [\"127.0.0.1\"]\n[task_types.hangs]\nrunner = {{ http = \"{}\" }}\n\
         [task_types.up]\nrunner = {{ http = \"{}\" }}\n",
        hangs.url("/"),
        outside.url("/")
    );
    let service = Setup::new().config(&config).start().await;
    let (one, other) = (service.client().user("one"), service.client().user("other"));
    let submit = async |n| {
        let task = json!({"type": "hangs", "params": {"n": n}});
        one.submit_keyless(&task).await.expect(202);
    };
    futures_util::future::join_all((0..300).map(submit)).await;
    hangs.seen_reach(192).await;
    let id = other.submit_keyless(&json!({"type": "up"})).await.id();
    assert_eq!(other.ended(&id).await["state"], "succeeded");
    assert_eq!(other.echo(json!({"x": 1})).await["state"], "succeeded");
    assert_eq!(hangs.seen().len(), 192);
}

#[tokio::test]
async fn retry_after_is_the_earliest_next_attempt() {
    let outside = Outside::start(|_, _| says(503, "retry-after: 500\r\n", "")).await;
    let service = service(&outside, AT_ONCE).await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "remote"})).await.id();
    let task = client.in_state(&id, "retrying").await;
    let at = |member: &str| Timestamp::parse_rfc3339(task[member].as_str().unwrap()).unwrap();
    let wait = at("next_attempt_at").since(at("started_at"));
    assert!(wait >= Duration::from_secs(500), "{wait:?}");
    assert!(wait < Duration::from_secs(600), "{wait:?}");
}

#[tokio::test]
async fn what_is_no_result_fails_for_good() {
    let outside = Outside::start(
        |seen, _| match seen.json()["params"]["case"].as_str().unwrap() {
            "words" => says(200, "", "done"),
            "large" => says(200, "", format!("\"{}\"", "x".repeat(3000))),
            _ => Does::Floods(b"HTTP/1.1 200 OK\r\n\r\n\"".to_vec(), vec![b'x'; 1000]),
        },
    )
    .await;
    let more = format!("{AT_ONCE}\n[limits]\nresult_bytes_max = 2000");
    let service = service(&outside, &more).await;
    let client = service.client();
    for (case, code) in [
        ("words", "result-invalid"),
        ("large", "response-too-large"),
        ("endless", "response-too-large"),
    ] {
        let task = json!({"type": "remote", "params": {"case": case}});
        let id = client.submit_keyless(&task).await.id();
        let failed = client.ended(&id).await;
        assert_eq!(
            (&failed["error"]["code"], &failed["attempt"]),
            (&json!(code), &json!(1)),
            "{failed}"
        );
    }
}

#[tokio::test]
async fn cancelling_hangs_up_and_the_late_answer_counts_for_nothing() {
    let outside = Outside::start(|_, _| Does::Waits(Vec::new())).await;
    let service = service(&outside, "").await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "remote"})).await.id();
    outside.seen_reach(1).await;
    client
        .post(&format!("/v1/tasks/{id}/cancel"))
        .send()
        .await
        .expect(200);
    outside.hung_up_reach(1).await;
    assert_eq!(client.ended(&id).await["state"], "cancelled");
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_hung_up_on_and_retried() {
    let outside = Outside::start(|_, before| match before {
        0 => Does::Waits(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1".to_vec()),
        _ => says(200, "", "2"),
    })
    .await;
    let more = format!("timeout_seconds = 1\nlease_seconds = 1\n{AT_ONCE}");
    let service = service(&outside, &more).await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "remote"})).await.id();
    assert_eq!(client.ended(&id).await["result"], 2);
    outside.hung_up_reach(1).await;
}

#[tokio::test]
async fn what_is_accepted_keeps_its_lease_and_takes_no_slot() {
    let outside = Outside::start(|_, _| says(202, "", "")).await;
    // Leases of a second, that nobody renews: only the long one keeps the task.
    let service = service(&outside, "lease_seconds = 1\nconcurrency = 1").await;
    let client = service.client();
    let mut ids = Vec::new();
    for n in 0..3 {
        let task = json!({"type": "remote", "params": {"n": n}});
        ids.push(client.submit_keyless(&task).await.id());
    }
    // One at a time, and yet all three are with the service.
    outside.seen_reach(3).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for id in &ids {
        let task = client.task(id).await;
        assert_eq!(
            (&task["state"], &task["attempt"]),
            (&json!("running"), &json!(1))
        );
    }
    assert_eq!(outside.seen().len(), 3);
    client
        .post(&format!("/v1/tasks/{}/cancel", ids[0]))
        .send()
        .await
        .expect(200);
    // The cancellation is confirmed, so that the same work can be asked for anew.
    let again = json!({"type": "remote", "params": {"n": 0}});
    until("a new task", async || {
        let id = client.submit_keyless(&again).await.id();
        (id != ids[0]).then_some(())
    })
    .await;
    outside.seen_reach(4).await;
}

#[tokio::test]
async fn what_was_accepted_and_never_completed_is_tried_again() {
    let outside = Outside::start(|_, before| match before {
        0 => says(202, "", ""),
        _ => says(200, "", "\"now\""),
    })
    .await;
    let service = service(&outside, "timeout_seconds = 2\nlease_seconds = 1").await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "remote"})).await.id();
    let done = client.ended(&id).await;
    assert_eq!(
        (&done["result"], &done["attempt"]),
        (&json!("now"), &json!(2))
    );
}

/// What a service tells of the lease that it was given with the task.
async fn tell(client: &Client, got: &Value, verb: &str, mut body: Value) -> Reply {
    body["fencing_token"] = got["fencing_token"].clone();
    let path = format!("/v1/leases/{}/{verb}", got["lease_id"].as_str().unwrap());
    client.post(&path).json(&body).send().await
}

/// Until the attempts of so many tasks have been handed over.
async fn handed_over(service: &Service, count: usize) {
    until("the lease to be handed over", async || {
        (service.log_text().matches("was handed over").count() >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_accepted_is_ended_later_with_its_lease() {
    let outside = Outside::start(|_, _| says(202, "", "")).await;
    let service = service(&outside, "retry = { first_delay_seconds = 600 }").await;
    let client = service.client();
    let mut ids = Vec::new();
    for n in 0..2 {
        let task = json!({"type": "remote", "params": {"n": n}});
        ids.push(client.submit_keyless(&task).await.id());
        outside.seen_reach(n + 1).await;
    }
    handed_over(&service, 2).await;
    let workers = client.get("/v1/workers").send().await.expect(200).text();
    assert!(workers.contains("the service of remote"), "{workers}");
    let got: Vec<_> = outside.seen().iter().map(|seen| seen.json()).collect();
    let mut stale = got[0].clone();
    stale["fencing_token"] = json!(got[0]["fencing_token"].as_u64().unwrap() - 1);
    tell(&client, &stale, "complete", json!({"result": 1}))
        .await
        .problem(409, "lease-lost");
    let progress = json!({"progress": {"done": 1, "total": 2}});
    tell(&client, &got[0], "heartbeat", progress)
        .await
        .expect(200);
    assert_eq!(client.task(&ids[0]).await["progress"]["done"], 1.0);
    for _ in 0..2 {
        tell(&client, &got[0], "complete", json!({"result": {"a": 1}}))
            .await
            .expect(200);
    }
    assert_eq!(client.ended(&ids[0]).await["result"], json!({"a": 1}));
    tell(
        &client,
        &got[1],
        "fail",
        json!({"error": {"message": "no paper"}}),
    )
    .await
    .expect(200);
    let failed = client.in_state(&ids[1], "retrying").await;
    assert_eq!(failed["error"]["message"], "no paper");
}

#[tokio::test]
async fn a_restart_leaves_what_was_accepted_with_the_service() {
    let outside = Outside::start(|_, _| says(202, "", "")).await;
    let first = service(&outside, "").await;
    let id = first
        .client()
        .submit_keyless(&json!({"type": "remote"}))
        .await
        .id();
    outside.seen_reach(1).await;
    handed_over(&first, 1).await;
    first.terminate();
    let (status, setup) = first.ended().await;
    assert!(status.success());
    let again = setup.start().await;
    let client = again.client();
    let task = client.task(&id).await;
    assert_eq!(
        (&task["state"], &task["attempt"]),
        (&json!("running"), &json!(1))
    );
    let got = outside.seen()[0].json();
    tell(&client, &got, "complete", json!({"result": 7}))
        .await
        .expect(200);
    assert_eq!(client.ended(&id).await["result"], 7);
    assert_eq!(outside.seen().len(), 1);
}

#[tokio::test]
async fn private_targets_are_refused_at_the_start_unless_allowed() {
    for url in [
        "http://127.0.0.1:9/",
        "http://localhost/",
        "http://10.1.2.3/",
        "http://u:p@a.example/",
    ] {
        let config = format!("[task_types.remote]\nrunner = {{ http = \"{url}\" }}\n");
        let output = Setup::new()
            .config(&config)
            .command()
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("task type `remote`: runner.http"), "{text}");
    }
}
