//! Workers outside: they lease tasks over HTTP.

use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::leasing::{FAR, Worker, leases_in, submit};
use crate::support::wire::Wire;
use crate::support::{Service, Setup, redis};

async fn start(more: &str) -> Service {
    Setup::new().config(&format!("{FAR}{more}")).start().await
}

/// Leases of a second, and retries at once.
const HASTY: &str = "lease_seconds = 1\nretry = { first_delay_seconds = 0.02, max_attempts = 3 }\n";

#[tokio::test]
async fn a_task_is_leased_renewed_and_completed() {
    let service = start("").await;
    let client = service.client();
    let id = submit(&client, 1).await;
    let worker = Worker::of(&service);
    let mut leases = worker.lease(json!({"max": 5})).await;
    assert_eq!(leases.len(), 1);
    let lease = leases.remove(0);
    assert_eq!(lease.task["id"], id.as_str());
    assert_eq!(lease.task["state"], "running");
    assert_eq!(lease.task["params"], json!({"n": 1}));
    assert_eq!(lease.task["idempotency_key"], "k1");
    assert_eq!(lease.task["attempt"], 1);
    assert_eq!(lease.task["user"], "anonymous");
    assert!(worker.lease(json!({})).await.is_empty(), "leased twice");

    let progress = json!({"done": 3, "total": 10, "message": "x".repeat(600)});
    let beat = worker
        .heartbeat(&lease, json!({"progress": progress}))
        .await;
    let beat = beat.expect(200).json();
    assert_eq!(beat["cancel_requested"], false);
    assert!(beat["lease_expires_at"].as_str() >= lease.expires_at.as_deref());
    let shown = client.task(&id).await;
    assert_eq!(shown["progress"]["done"], 3);
    assert_eq!(shown["progress"]["message"].as_str().unwrap().len(), 500);

    let text = format!(
        r#"{{"result": {{"kept":  "as it is", "x": 1.50}}, "fencing_token": {}}}"#,
        lease.token
    );
    for _ in 0..2 {
        let path = format!("/v1/leases/{}/complete", lease.id);
        let reply = client.post(&path).json_text(text.clone()).send().await;
        assert!(reply.header("durability").is_some());
        let ended = reply.expect(200).json();
        assert_eq!(
            (&ended["id"], &ended["state"]),
            (&json!(id), &json!("succeeded"))
        );
    }
    let result = client.get(&format!("/v1/tasks/{id}/result")).send().await;
    assert_eq!(result.text(), r#"{"kept":  "as it is", "x": 1.50}"#);
}

#[tokio::test]
async fn a_waiting_worker_hears_of_work_in_milliseconds() {
    let service = start("").await;
    hears_at_once(&service, &service).await;
}

#[tokio::test]
async fn a_waiting_worker_hears_of_work_of_another_replica() {
    let (url, prefix) = (redis::durable().url(), redis::prefix());
    let replica = || {
        Setup::new()
            .env("REDIS_URL", &url)
            .env("JUSTONCE_REDIS_PREFIX", &prefix)
            .config(FAR)
            .start()
    };
    let (one, other) = (replica().await, replica().await);
    hears_at_once(&one, &other).await;
}

/// Tasks come in at one replica, and a worker waits at another.
async fn hears_at_once(one: &Service, other: &Service) {
    let client = one.client();
    for n in 0..4 {
        let waiting = Worker::of(other);
        let waiting = tokio::spawn(async move {
            let leases = waiting.lease(json!({"wait": 50})).await;
            let heard_at = Instant::now();
            let [lease] = &leases[..] else {
                panic!("{} leases", leases.len());
            };
            waiting.complete(lease, json!(1)).await.expect(200);
            heard_at
        });
        // Time to begin to wait: a worker that comes later finds the task at once, and shows nothing.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let submitted_at = Instant::now();
        submit(&client, n).await;
        let took = waiting.await.unwrap().duration_since(submitted_at);
        // A poll would come after four seconds.
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn each_task_calls_one_of_those_who_wait_and_a_batch_calls_all() {
    const WORKERS: u32 = 20;
    let service = start("").await;
    let client = service.client();
    let waiting: Vec<_> = (0..WORKERS)
        .map(|_| {
            let worker = Worker::of(&service);
            tokio::spawn(async move { worker.lease(json!({"wait": 50})).await })
        })
        .collect();
    for n in 0..WORKERS {
        submit(&client, n).await;
    }
    for worker in waiting {
        assert_eq!(worker.await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_empty_wait_ends_in_time_and_also_when_the_service_stops() {
    let service = start("").await;
    let worker = Worker::of(&service);
    let began = Instant::now();
    assert!(worker.lease(json!({"wait": 0.2})).await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(200));
    let waiting = tokio::spawn(async move { worker.lease(json!({"wait": 50})).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.terminate();
    let (status, _) = service.ended().await;
    assert!(status.success());
    assert!(waiting.await.unwrap().is_empty());
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "the wait was not cut short"
    );
}

#[tokio::test]
async fn a_client_that_went_away_while_it_waited_takes_no_task_with_it() {
    let service = start("").await;
    let client = service.client();
    for n in 0..10 {
        let body = r#"{"types": ["far"], "wait": 50}"#;
        let head = "POST /v1/leases HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let mut gone = Wire::connect(service.address).await;
        gone.send(format!(
            "{head}content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        // Now and then before it is heard, while it waits, and when there is work.
        tokio::time::sleep(Duration::from_millis(n * 10)).await;
        let id = submit(&client, u32::try_from(n).unwrap()).await;
        let worker = Worker::of(&service);
        gone.finish().await;
        // It may have been quicker than we are; what it was sent is its own.
        let was_sent = gone.answer().await;
        let was_sent = was_sent.and_then(|answer| leases_in(&answer.json()).pop());
        let lease = match was_sent {
            Some(lease) => lease,
            None => {
                until("the task to be there for others", async || {
                    worker.lease(json!({"wait": 5})).await.pop()
                })
                .await
            }
        };
        assert_eq!(lease.task["id"], id.as_str());
        worker.complete(&lease, json!(1)).await.expect(200);
    }
}

#[tokio::test]
async fn a_nonce_brings_back_the_leases_of_a_lost_reply() {
    let service = start("").await;
    let client = service.client();
    for n in 0..3 {
        submit(&client, n).await;
    }
    let worker = Worker::of(&service);
    let ask = json!({"max": 2, "nonce": "call 1"});
    let first = worker.lease(ask.clone()).await;
    let again = worker.lease(ask.clone()).await;
    let ids = |leases: &[crate::support::leasing::Lease]| -> Vec<_> {
        leases.iter().map(|lease| lease.id.clone()).collect()
    };
    assert_eq!(first.len(), 2);
    assert_eq!(ids(&first), ids(&again));
    // A nonce is its worker's own.
    let mut other = ask.clone();
    other["worker"] = json!("other");
    assert_eq!(worker.lease(other).await.len(), 1);
    worker.complete(&first[0], json!(1)).await.expect(200);
    assert_eq!(ids(&worker.lease(ask).await), ids(&first[1..]));
}

#[tokio::test]
async fn a_silent_worker_loses_its_lease_and_its_late_result_is_refused_and_counted() {
    let service = start(HASTY).await;
    let client = service.client();
    let id = submit(&client, 1).await;
    let worker = Worker::of(&service);
    let silent = worker.lease(json!({})).await.remove(0);
    let next = until("the rescue", async || {
        worker.lease(json!({"wait": 5})).await.pop()
    })
    .await;
    assert_eq!(
        (next.task["attempt"].clone(), &next.task["id"]),
        (json!(2), &json!(id))
    );
    assert!(next.token > silent.token);
    assert_ne!(next.id, silent.id);
    for late in [
        worker.complete(&silent, json!("late")).await,
        worker
            .fail(&silent, json!({"message": "late"}), false)
            .await,
        worker.heartbeat(&silent, json!({})).await,
    ] {
        late.problem(409, "lease-lost");
    }
    let file = client.get(&format!("/v1/leases/{}/file", silent.id));
    file.send().await.problem(409, "lease-lost");
    let fenced = client.stats().await["windows"]["all"]["writes_fenced"].clone();
    assert_eq!(fenced, 3);
    // The token decides, whichever name of the lease it comes with.
    let mut forged = next.clone();
    forged.token += 1;
    worker
        .complete(&forged, json!("forged"))
        .await
        .problem(409, "lease-lost");
    worker.complete(&next, json!("true")).await.expect(200);
    let ended = client.ended(&id).await;
    assert_eq!(
        (&ended["result"], &ended["attempt"]),
        (&json!("true"), &json!(2))
    );
}

#[tokio::test]
async fn failures_are_retried_until_they_are_for_good() {
    let service = start("retry = { first_delay_seconds = 0.02, max_attempts = 3 }\n").await;
    let client = service.client();
    let worker = Worker::of(&service);
    let id = submit(&client, 1).await;
    let lease = worker.lease(json!({})).await.remove(0);
    let error = json!({"message": "busy", "code": "out-of-paper"});
    let end = worker.fail(&lease, error.clone(), false).await;
    let end = end.expect(200).json();
    assert_eq!(end["state"], "retrying");
    assert!(end["next_attempt_at"].is_string());
    // Told again, it changes nothing; the task may be ready by now.
    let again = worker.fail(&lease, error.clone(), false).await;
    assert_eq!(again.expect(200).json()["attempt"], 1);
    let lease = worker.next().await;
    assert_eq!(lease.task["attempt"], 2);
    let end = worker
        .fail(&lease, json!({"message": "no"}), true)
        .await
        .expect(200)
        .json();
    assert_eq!(end["state"], "failed");
    let failed = client.ended(&id).await;
    let expected =
        json!({"code": "worker-failed", "message": "no", "attempt": 2, "permanent": true});
    assert_eq!(failed["error"], expected);

    let id = submit(&client, 2).await;
    for attempt in 1..=3 {
        let lease = worker.next().await;
        assert_eq!(lease.task["attempt"], attempt);
        worker.fail(&lease, error.clone(), false).await.expect(200);
    }
    let failed = client.ended(&id).await;
    assert_eq!(failed["error"]["code"], "out-of-paper");
    assert_eq!(failed["state"], "failed");
}

#[tokio::test]
async fn cancelling_reaches_the_worker_at_its_next_heartbeat() {
    let service = start("").await;
    let client = service.client();
    let worker = Worker::of(&service);
    for confirms in [true, false] {
        let id = submit(&client, u32::from(confirms)).await;
        let lease = worker.next().await;
        let cancel = client.post(&format!("/v1/tasks/{id}/cancel"));
        let cancelled = tokio::spawn(async move { cancel.send().await.expect(200).json() });
        let beat = until("the news of the cancellation", async || {
            let beat = worker.heartbeat(&lease, json!({})).await.expect(200).json();
            (beat["cancel_requested"] == true).then_some(beat)
        })
        .await;
        assert!(beat["lease_expires_at"].is_string());
        match confirms {
            true => {
                let stopped = worker
                    .fail(&lease, json!({"message": "stopped"}), false)
                    .await;
                assert_eq!(stopped.expect(200).json()["state"], "cancelled");
            }
            false => drop(
                worker
                    .complete(&lease, json!(1))
                    .await
                    .problem(409, "lease-lost"),
            ),
        }
        assert_eq!(cancelled.await.unwrap()["state"], "cancelled");
        assert_eq!(client.task(&id).await["state"], "cancelled");
        // Its content is free again.
        let task = json!({"type": "far", "params": {"n": u32::from(confirms)}});
        let anew = client.submit_keyless(&task).await.id();
        assert_ne!(anew, id);
        let lease = worker.next().await;
        worker.complete(&lease, json!(1)).await.expect(200);
    }
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_ends_at_a_heartbeat() {
    let more = "timeout_seconds = 2\nlease_seconds = 1\nretry = { first_delay_seconds = 0.02 }\n";
    let service = start(more).await;
    let client = service.client();
    let worker = Worker::of(&service);
    let id = submit(&client, 1).await;
    let lease = worker.lease(json!({})).await.remove(0);
    let refused = until("the end of its time", async || {
        let beat = worker.heartbeat(&lease, json!({})).await;
        (beat.status != 200).then_some(beat)
    })
    .await;
    refused.problem(409, "lease-lost");
    let again = worker.next().await;
    assert_eq!(again.task["attempt"], 2);
    let task = client.task(&id).await;
    assert_eq!(
        (&task["error"]["code"], &task["error"]["attempt"]),
        (&json!("timeout"), &json!(1))
    );
}

#[tokio::test]
async fn a_file_comes_with_the_lease_of_its_task() {
    let service = start("").await;
    let client = service.client();
    let worker = Worker::of(&service);
    let path = "/v1/files?type=far&filename=a.csv";
    client
        .post(path)
        .body("a,b\n1,2\n")
        .send()
        .await
        .expect(202);
    let lease = worker.next().await;
    assert_eq!(lease.task["file"]["name"], "a.csv");
    let of = |id: &str, query: &str| client.get(&format!("/v1/leases/{id}/file{query}")).send();
    let file = of(&lease.id, "").await.expect(200);
    assert_eq!(file.text(), "a,b\n1,2\n");
    assert!(
        file.header("content-disposition")
            .unwrap()
            .contains("a.csv")
    );
    assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
    let sha256 = lease.task["file"]["sha256"].as_str().unwrap().to_owned();
    of(&lease.id, &format!("?sha256={sha256}"))
        .await
        .expect(200);
    let another = format!("?sha256={}", "0".repeat(64));
    of(&lease.id, &another).await.problem(404, "not-found");
    of(&lease.id, "?sha256=x")
        .await
        .problem(422, "validation-failed");
    of(&lease.id, "?part=1")
        .await
        .problem(422, "validation-failed");
    worker.complete(&lease, json!(1)).await.expect(200);
    of(&lease.id, "").await.problem(409, "lease-lost");

    submit(&client, 1).await;
    let without = worker.next().await;
    of(&without.id, "").await.problem(404, "not-found");

    let form = Form::new()
        .text("task", json!({"type": "far"}).to_string())
        .part("one", Part::bytes(b"1".as_slice()).file_name("1"))
        .part("two", Part::bytes(b"2".as_slice()).file_name("2"));
    client
        .post("/v1/files")
        .multipart(form)
        .send()
        .await
        .expect(202);
    let several = worker.next().await;
    of(&several.id, "").await.problem(422, "validation-failed");
    for file in several.task["files"].as_array().unwrap() {
        let query = format!("?sha256={}", file["sha256"].as_str().unwrap());
        assert_eq!(
            of(&several.id, &query).await.expect(200).text(),
            file["name"].as_str().unwrap()
        );
    }
}

#[tokio::test]
async fn results_have_a_limit_and_large_ones_are_kept_as_files_are() {
    let setup = Setup::new().config(&format!(
        "[limits]\nresult_bytes_max = 3000\nresult_inline_bytes_max = 1000\n{FAR}"
    ));
    let service = setup.start().await;
    let client = service.client();
    let worker = Worker::of(&service);
    let id = submit(&client, 1).await;
    let lease = worker.next().await;
    for length in [2_999, 100_000] {
        let refused = worker.complete(&lease, json!("x".repeat(length))).await;
        refused.problem(413, "payload-too-large");
    }
    assert_eq!(client.task(&id).await["state"], "running");
    let large = "x".repeat(2_998);
    for _ in 0..3 {
        worker.complete(&lease, json!(large)).await.expect(200);
    }
    let mut late = lease.clone();
    late.token -= 1;
    worker
        .complete(&late, json!(large))
        .await
        .problem(409, "lease-lost");
    let shown = client.ended(&id).await;
    assert!(shown["result"].is_null());
    let result = client.get(&format!("/v1/tasks/{id}/result")).send().await;
    assert_eq!(result.json(), json!(large));
    assert_eq!(
        service.stored_files().len(),
        1,
        "copies that nobody named stayed"
    );
}

#[tokio::test]
async fn a_lease_outlives_the_service_that_gave_it() {
    let service = start("").await;
    let id = submit(&service.client(), 1).await;
    let lease = Worker::of(&service)
        .lease(json!({"nonce": "n"}))
        .await
        .remove(0);
    let service = service.kill().await.start().await;
    let worker = Worker::of(&service);
    assert!(
        worker.lease(json!({})).await.is_empty(),
        "the lease was taken away"
    );
    worker.heartbeat(&lease, json!({})).await.expect(200);
    assert_eq!(worker.lease(json!({"nonce": "n"})).await.len(), 1);
    worker.complete(&lease, json!("done")).await.expect(200);
    let ended = service.client().ended(&id).await;
    assert_eq!(
        (&ended["result"], &ended["attempt"]),
        (&json!("done"), &json!(1))
    );
}

#[tokio::test]
async fn bad_input_is_told_by_its_name() {
    let service = start("").await;
    let client = service.client();
    let worker = Worker::of(&service);
    let lease = |body: &Value| client.post("/v1/leases").json(body).send();
    let unknown = lease(&json!({"types": ["far", "near"]})).await;
    let unknown = unknown.problem(422, "unknown-task-type");
    assert!(unknown["known"].as_array().unwrap().contains(&json!("far")));
    let inside = lease(&json!({"types": ["far", "echo"]})).await;
    let inside = inside.problem(422, "validation-failed");
    assert_eq!(inside["errors"][0]["pointer"], "/types/1");
    assert!(
        inside["detail"].as_str().unwrap().contains("builtin"),
        "{inside}"
    );
    for (body, pointer) in [
        (json!({}), "/types"),
        (json!({"types": []}), "/types"),
        (json!({"types": "far"}), "/types"),
        (json!({"types": [1]}), "/types"),
        (json!({"types": ["far"], "max": 0}), "/max"),
        (json!({"types": ["far"], "max": 101}), "/max"),
        (json!({"types": ["far"], "max": "1"}), "/max"),
        (json!({"types": ["far"], "wait": -1}), "/wait"),
        (json!({"types": ["far"], "wait": "1"}), "/wait"),
        (json!({"types": ["far"], "worker": ""}), "/worker"),
        (json!({"types": ["far"], "worker": "a\nb"}), "/worker"),
        (
            json!({"types": ["far"], "nonce": "x".repeat(256)}),
            "/nonce",
        ),
        (json!({"types": ["far"], "queue": "a"}), "/queue"),
    ] {
        let problem = lease(&body).await.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    submit(&client, 1).await;
    let held = worker.next().await;
    let token = held.token;
    for (verb, body, pointer) in [
        ("heartbeat", json!({}), "/fencing_token"),
        ("heartbeat", json!({"fencing_token": "1"}), "/fencing_token"),
        (
            "heartbeat",
            json!({"fencing_token": token, "progress": 1}),
            "/progress",
        ),
        (
            "heartbeat",
            json!({"fencing_token": token, "progress": {"done": "1"}}),
            "/progress",
        ),
        (
            "heartbeat",
            json!({"fencing_token": token, "progress": {"part": 1}}),
            "/progress",
        ),
        ("complete", json!({"result": 1}), "/fencing_token"),
        ("complete", json!({"fencing_token": -1}), "/fencing_token"),
        (
            "complete",
            json!({"fencing_token": token, "output": 1}),
            "/output",
        ),
        ("fail", json!({"fencing_token": token}), "/error"),
        (
            "fail",
            json!({"fencing_token": token, "error": "x"}),
            "/error",
        ),
        (
            "fail",
            json!({"fencing_token": token, "error": {}}),
            "/error/message",
        ),
        (
            "fail",
            json!({"fencing_token": token, "error": {"message": "x", "code": "A b"}}),
            "/error/code",
        ),
        (
            "fail",
            json!({"fencing_token": token, "error": {"message": "x"}, "permanent": 1}),
            "/permanent",
        ),
        ("fail", json!({"error": {"message": "x"}}), "/fencing_token"),
    ] {
        let path = format!("/v1/leases/{}/{verb}", held.id);
        let problem = client.post(&path).json(&body).send().await;
        let problem = problem.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{verb} {body}");
    }
    for verb in ["heartbeat", "complete", "fail"] {
        let post = |id: &str| client.post(&format!("/v1/leases/{id}/{verb}"));
        let whole = json!({"fencing_token": token, "error": {"message": "x"}});
        for id in ["x", &held.task["id"].as_str().unwrap().repeat(2), "%00"] {
            post(id).json(&whole).send().await.problem(404, "not-found");
        }
        let twice = format!(r#"{{"fencing_token": {token}, "fencing_token": 1}}"#);
        for text in ["", "{", "[1", twice.as_str()] {
            let refused = post(&held.id).json_text(text.to_owned()).send().await;
            refused.problem(400, "invalid-json");
        }
        let list = post(&held.id).json(&json!([1])).send().await;
        list.problem(422, "validation-failed");
        let plain = post(&held.id)
            .header("content-type", "text/plain")
            .body("{}");
        plain.send().await.problem(415, "unsupported-media-type");
    }
    worker.complete(&held, Value::Null).await.expect(200);
}
