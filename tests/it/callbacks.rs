//! Callbacks: who is told of a task's end, what, and how often.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::outside::{Does, Outside, Seen, says};
use crate::support::signature::is_genuine;
use crate::support::{Client, Setup, World};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_AAKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const THIRD: &str = "whsec_BBKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Reaches this machine, and does not wait long between attempts.
const FAST: &str = "[egress]\nallow = [\"127.0.0.1\"]\n\
    [task_types.deliver_webhook]\nretry = { first_delay_seconds = 0.02 }\n";

fn setup() -> Setup {
    Setup::new()
        .config(FAST)
        .env("JUSTONCE_WEBHOOK_SECRET", SECRET)
}

async fn listening() -> Outside {
    Outside::start(|_, _| says(204, "", "")).await
}

fn echo(n: u32, callback: &str) -> Value {
    json!({"type": "echo", "params": {"n": n}, "callback_url": callback})
}

/// The deliveries of a task, once all of them have ended.
async fn delivered(client: &Client, id: &str) -> Vec<Value> {
    until("the deliveries", async || {
        let all = client
            .list(&format!("tag=callback_of:{id}&limit=100"))
            .await;
        let ended = |task: &Value| crate::support::client::is_ended(task);
        (!all.is_empty() && all.iter().all(ended)).then_some(all)
    })
    .await
}

/// Paths by the `webhook-id` that came there, each of which must always say the same.
fn messages(seen: &[Seen]) -> BTreeMap<String, (String, Value)> {
    let mut messages = BTreeMap::new();
    for one in seen {
        let id = one.header("webhook-id").unwrap().to_owned();
        let said = (one.path.clone(), one.json());
        let first = messages.entry(id).or_insert_with(|| said.clone());
        assert_eq!(*first, said, "one message says two things");
    }
    messages
}

#[tokio::test]
async fn the_end_of_a_task_is_told_signed_and_whole() {
    let outside = listening().await;
    let service = setup().start().await;
    let client = service.client().user("ada");
    let id = client
        .submit(&echo(1, &outside.url("/hook?a=b")), "k")
        .await
        .id();
    let task = client.ended(&id).await;
    let seen = outside.seen_reach(1).await.remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("POST", "/hook?a=b")
    );
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert!(is_genuine(SECRET, &seen).await);
    assert!(!is_genuine(OTHER, &seen).await);
    let told = seen.json();
    assert_eq!(told["type"], "task.succeeded");
    assert_eq!(told["timestamp"], task["finished_at"]);
    assert_eq!(told["data"], task);
    let deliveries = delivered(&client, &id).await;
    assert_eq!(deliveries.len(), 1);
    let delivery = &deliveries[0];
    assert_eq!(
        (&delivery["state"], &delivery["type"]),
        (&json!("succeeded"), &json!("deliver_webhook"))
    );
    assert_eq!(delivery["user"], "ada");
    assert_eq!(
        delivery["result"]["message_id"].as_str(),
        seen.header("webhook-id")
    );
    let id_of_delivery = delivery["id"].as_str().unwrap();
    assert_eq!(
        seen.header("webhook-id"),
        Some(format!("msg_{id_of_delivery}").as_str())
    );
    // Lists show it by its type; it is nobody's use, and others do not see it.
    assert_eq!(client.list("type=deliver_webhook").await.len(), 1);
    assert!(
        service
            .client()
            .user("bob")
            .list("type=deliver_webhook")
            .await
            .is_empty()
    );
    assert_eq!(client.stats().await["windows"]["all"]["accepted"], 1);
}

#[tokio::test]
async fn failures_and_cancellations_are_told() {
    let outside = listening().await;
    let service = setup().start().await;
    let client = service.client();
    let fails = json!({"type": "echo", "params": {"fail_permanently": true}, "callback_url": outside.url("/f")});
    let failed = client.submit_keyless(&fails).await.id();
    let failed = client.ended(&failed).await;
    let told = outside.seen_reach(1).await[0].json();
    assert_eq!(told["type"], "task.failed");
    assert_eq!(told["data"], failed);
    assert_eq!(told["data"]["error"]["permanent"], true);
    let waits = json!({"type": "echo", "delay_seconds": 3600, "callback_url": outside.url("/c")});
    let id = client.submit_keyless(&waits).await.id();
    for _ in 0..2 {
        client
            .post(&format!("/v1/tasks/{id}/cancel"))
            .send()
            .await
            .expect(200);
    }
    let told = outside.seen_reach(2).await[1].json();
    assert_eq!(
        (&told["type"], &told["data"]["id"]),
        (&json!("task.cancelled"), &json!(id))
    );
    delivered(&client, &id).await;
    // A redrive is a new end, and a new message.
    let again = format!("/v1/tasks/{}/redrive", failed["id"].as_str().unwrap());
    client.post(&again).send().await.expect(202);
    let seen = outside.seen_reach(3).await;
    let ids: BTreeSet<_> = seen
        .iter()
        .map(|one| one.header("webhook-id").unwrap())
        .collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(seen[2].json()["data"]["attempt"], 2);
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_as_the_same_message() {
    let outside = Outside::start(|_, before| match before {
        0 => says(500, "", ""),
        // It has arrived, and nobody knows.
        1 => Does::Says(Vec::new()),
        2 => says(404, "", ""),
        _ => says(200, "", ""),
    })
    .await;
    let service = setup().start().await;
    let client = service.client();
    let id = client.submit(&echo(1, &outside.url("/")), "k").await.id();
    let delivery = delivered(&client, &id).await.remove(0);
    assert_eq!(
        (&delivery["state"], &delivery["attempt"]),
        (&json!("succeeded"), &json!(4))
    );
    let seen = outside.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(messages(&seen).len(), 1);
    for one in &seen {
        assert_eq!(one.body, seen[0].body);
        assert!(is_genuine(SECRET, one).await);
    }
}

#[tokio::test]
async fn a_delivery_that_has_failed_is_a_dead_letter_and_is_redriven_by_hand() {
    let outside = Outside::start(|_, before| match before {
        0 => says(410, "", ""),
        1 => says(302, "location: /elsewhere\r\n", ""),
        _ => says(200, "", ""),
    })
    .await;
    let service = setup().start().await;
    let client = service.client();
    let fails = json!({"type": "echo", "params": {"fail_permanently": true}, "callback_url": outside.url("/")});
    let id = client.submit(&fails, "k").await.id();
    let ended = client.ended(&id).await;
    let delivery = delivered(&client, &id).await.remove(0);
    assert_eq!(
        (&delivery["state"], &delivery["attempt"]),
        (&json!("failed"), &json!(1))
    );
    // The task goes on meanwhile, and the message still tells of the end that it was made for.
    client
        .post(&format!("/v1/tasks/{id}/redrive"))
        .send()
        .await
        .expect(202);
    until("the second delivery", async || {
        let all = delivered(&client, &id).await;
        (all.len() == 2).then_some(())
    })
    .await;
    assert_eq!(client.task(&id).await["attempt"], 2);
    let redrive = format!("/v1/tasks/{}/redrive", delivery["id"].as_str().unwrap());
    client.post(&redrive).send().await.expect(202);
    let sent = client.ended(delivery["id"].as_str().unwrap()).await;
    assert_eq!(sent["state"], "succeeded");
    let seen = outside.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(messages(&seen).len(), 2);
    assert_eq!(seen[2].header("webhook-id"), seen[0].header("webhook-id"));
    assert_eq!(seen[2].json()["data"], ended);
    // Nobody is told of a task that was deleted.
    client
        .delete(&format!("/v1/tasks/{id}"))
        .send()
        .await
        .expect(204);
    let other = delivered(&client, &id).await;
    let other = other.iter().find(|one| one["state"] == "failed").unwrap();
    let other = other["id"].as_str().unwrap();
    client
        .post(&format!("/v1/tasks/{other}/redrive"))
        .send()
        .await
        .expect(202);
    let failed = client.ended(other).await;
    assert_eq!(failed["error"]["code"], "task-forgotten");
    assert_eq!(outside.seen().len(), 3);
}

#[tokio::test]
async fn every_way_of_submitting_takes_a_callback() {
    let outside = listening().await;
    let service = setup().start().await;
    let client = service.client();
    let url = |path: &str| outside.url(path);
    client
        .submit_keyless(&echo(1, &url("/single")))
        .await
        .expect(202);
    let items = json!([
        echo(2, &url("/item")),
        echo(3, "http://10.0.0.1/"),
        echo(2, &url("/item2"))
    ]);
    let batch = client
        .post("/v1/tasks/batch")
        .json(&items)
        .send()
        .await
        .expect(200)
        .json();
    let items = batch["items"].as_array().unwrap();
    assert_eq!(items[1]["problem"]["code"], "callback-url-rejected");
    assert_eq!(items[2]["task"]["matched_by"], "fingerprint");
    let part = reqwest::multipart::Part::bytes("a".as_bytes()).file_name("a.txt");
    let form = reqwest::multipart::Form::new()
        .text("type", "echo")
        .text("callback_url", url("/form"))
        .part("file", part);
    client
        .post("/v1/files")
        .multipart(form)
        .send()
        .await
        .expect(202);
    let task = json!({"type": "echo", "params": {"n": 5}, "callback_url": url("/part")});
    let part = reqwest::multipart::Part::bytes("b".as_bytes()).file_name("b.txt");
    let form = reqwest::multipart::Form::new()
        .text("task", task.to_string())
        .part("file", part);
    client
        .post("/v1/files")
        .multipart(form)
        .send()
        .await
        .expect(202);
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("type", "echo")
        .append_pair("callback_url", &url("/raw"))
        .finish();
    client
        .put(&format!("/v1/files?{query}"))
        .body("c")
        .send()
        .await
        .expect(202);
    let seen = outside.seen_reach(6).await;
    let paths: BTreeSet<_> = seen.iter().map(|one| one.path.as_str()).collect();
    let expected = ["/form", "/item", "/item2", "/part", "/raw", "/single"];
    assert_eq!(paths, BTreeSet::from(expected));
    assert_eq!(messages(&seen).len(), 6);
}

#[tokio::test]
async fn firings_of_schedules_are_told_like_all_else() {
    let outside = listening().await;
    let service = setup().start().await;
    let client = service.client();
    let put = async |callback: &str| {
        let plan = json!({"cron": "* * * * * *", "type": "echo", "callback_url": callback});
        client.put("/v1/schedules/often").json(&plan).send().await
    };
    put("http://10.0.0.1/")
        .await
        .problem(422, "callback-url-rejected");
    let schedule = put(&outside.url("/fired")).await.expect(201).json();
    assert_eq!(schedule["callback_url"], outside.url("/fired"));
    let seen = outside.seen_reach(2).await;
    assert_eq!(messages(&seen).len(), seen.len());
    for one in &seen {
        assert_eq!(one.path, "/fired");
        assert_eq!(one.json()["data"]["tags"], json!({"schedule": "often"}));
    }
    let deleted = client.delete("/v1/schedules/often").send().await;
    deleted.expect(204);
}

#[tokio::test]
async fn every_callback_of_joined_duplicates_is_told_once() {
    let outside = listening().await;
    let world = World::new();
    let config = format!(
        "{FAST}[task_types.gated]\nrunner = {{ {} }}\n",
        world.gate("gate")
    );
    let service = setup().config(&config).start().await;
    let client = service.client();
    let task = |n: usize| json!({"type": "gated", "callback_url": outside.url(&format!("/{n}"))});
    let id = client.submit_keyless(&task(0)).await.id();
    // Twenty callbacks, of which some come twice, all at once.
    let submitted = (1..32).map(|n| {
        let (client, task) = (client.clone(), task(n % 20));
        async move { client.submit(&task, &format!("k{n}")).await }
    });
    let replies = join_all(submitted).await;
    let mut ignored = BTreeSet::new();
    for (n, reply) in (1..32).zip(&replies) {
        assert_eq!(reply.id(), id);
        match &reply.json()["ignored"] {
            Value::Null => {}
            pointers => {
                assert_eq!(*pointers, json!(["/callback_url"]));
                ignored.insert(format!("/{}", n % 20));
            }
        }
    }
    assert_eq!(ignored.len(), 4);
    assert!(outside.seen().is_empty());
    world.open_gate();
    client.ended(&id).await;
    let deliveries = delivered(&client, &id).await;
    assert_eq!(deliveries.len(), 16);
    let seen = outside.seen();
    assert_eq!((seen.len(), messages(&seen).len()), (16, 16));
    let paths: BTreeSet<_> = seen.iter().map(|one| one.path.clone()).collect();
    assert_eq!(paths.len(), 16);
    assert!(paths.is_disjoint(&ignored), "{paths:?} {ignored:?}");
    // The task is the same whoever is told.
    assert!(seen.iter().all(|one| one.json() == seen[0].json()));
    let late = client.submit(&task(99), "late").await.expect(200).json();
    assert_eq!(late["ignored"], json!(["/callback_url"]));
}

#[tokio::test]
async fn a_callback_that_comes_after_the_end_is_told_at_once() {
    let outside = listening().await;
    let service = setup().start().await;
    let client = service.client();
    let plain = json!({"type": "echo", "params": {"n": 1}});
    let id = client.submit(&plain, "k").await.id();
    let ended = client.ended(&id).await;
    // By now the answer comes from memory; a callback goes its way nevertheless.
    for _ in 0..3 {
        client.submit(&plain, "k").await.expect(200);
    }
    for _ in 0..3 {
        let again = client.submit(&echo(1, &outside.url("/late")), "k").await;
        assert_eq!(again.expect(200).id(), id);
        let other = client
            .submit_keyless(&echo(1, &outside.url("/later")))
            .await;
        assert_eq!(other.expect(200).id(), id);
    }
    let deliveries = delivered(&client, &id).await;
    assert_eq!(deliveries.len(), 2);
    let seen = outside.seen();
    assert_eq!(seen.len(), 2);
    for one in &seen {
        let mut told = one.json()["data"].clone();
        told["duplicates"] = ended["duplicates"].clone();
        assert_eq!(told, ended);
    }
}

#[tokio::test]
async fn callbacks_to_private_addresses_are_refused() {
    let service = Setup::new().start().await;
    let client = service.client();
    for url in [
        "http://127.0.0.1/",
        "http://127.1:8080/x",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://localhost/",
        "http://x.localhost./",
        "http://u:p@a.example/",
        "https://u@a.example/",
        "ftp://a.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "a.example/x",
        "//a.example/",
        "",
        " ",
    ] {
        let task = echo(1, url);
        let problem = client
            .submit(&task, "k")
            .await
            .problem(422, "callback-url-rejected");
        assert_eq!(problem["errors"][0]["pointer"], "/callback_url", "{url}");
        let check = client.post("/v1/tasks/check").json(&task).send().await;
        check.problem(422, "callback-url-rejected");
    }
    for other in [
        json!(7),
        json!(["https://a.example/"]),
        json!(null),
        json!({}),
    ] {
        let task = json!({"type": "echo", "callback_url": other});
        client
            .submit(&task, "k")
            .await
            .problem(422, "validation-failed");
    }
    // Whatever else is wrong is said with it.
    let both = json!({"type": "echo", "priority": 10, "callback_url": "http://10.0.0.1/"});
    let problem = client
        .submit(&both, "k")
        .await
        .problem(422, "validation-failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);
    assert_eq!(client.stats().await["total_tasks"], 0);
    // Nor is it taken with a key that names a task already.
    let id = client
        .submit(&json!({"type": "echo", "params": {"n": 1}}), "known")
        .await
        .id();
    client.ended(&id).await;
    client
        .submit(&echo(1, "http://127.0.0.1/"), "known")
        .await
        .problem(422, "callback-url-rejected");
    client
        .get("/problems/callback-url-rejected")
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn names_that_lead_to_private_addresses_are_refused_at_connect() {
    // The name of this machine is resolved to an address of its own.
    let service = Setup::new()
        .config("[task_types.deliver_webhook]\nretry = { first_delay_seconds = 0.02 }\n");
    let service = service.start().await;
    let client = service.client();
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let id = client
        .submit_keyless(&echo(
            1,
            &format!("http://{name}:{}/", service.address.port()),
        ))
        .await
        .id();
    let delivery = delivered(&client, &id).await.remove(0);
    assert_eq!(delivery["state"], "failed", "{delivery}");
    let error = &delivery["error"];
    assert_eq!(
        (&error["code"], &error["permanent"], &delivery["attempt"]),
        (&json!("address-refused"), &json!(true), &json!(1)),
        "{delivery}"
    );
}

#[tokio::test]
async fn deliveries_are_the_services_own() {
    let service = setup().start().await;
    let client = service.client();
    let task = json!({"type": "deliver_webhook", "params": {"url": "https://a.example"}});
    let problem = client
        .submit_keyless(&task)
        .await
        .problem(422, "unknown-task-type");
    assert!(
        !problem["known"]
            .as_array()
            .unwrap()
            .contains(&json!("deliver_webhook"))
    );
    client
        .post("/v1/files?type=deliver_webhook")
        .body("x")
        .send()
        .await
        .problem(422, "unknown-task-type");
    let types = client.get("/v1/task-types").send().await.expect(200).json();
    let items = types["items"].as_array().unwrap();
    let own: Vec<_> = items.iter().filter(|one| one["internal"] == true).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(
        (&own[0]["name"], &own[0]["retry"]["max_attempts"]),
        (&json!("deliver_webhook"), &json!(4))
    );
    // Its runner is not for others.
    for config in [
        "[task_types.deliver_webhook]\nrunner = { builtin = \"echo\" }\n",
        "[task_types.mine]\nrunner = { builtin = \"deliver_webhook\" }\n",
    ] {
        let output = Setup::new()
            .config(config)
            .command()
            .output()
            .await
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("deliver_webhook is the service's own"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn deliveries_wait_while_they_are_paused_and_are_nobodys_use() {
    let outside = listening().await;
    let service = setup().start().await;
    let client = service.client();
    client
        .post("/v1/task-types/deliver_webhook/pause")
        .send()
        .await
        .expect(200);
    let id = client
        .submit_keyless(&echo(1, &outside.url("/")))
        .await
        .id();
    client.ended(&id).await;
    let waiting = client.list("type=deliver_webhook&state=queued").await;
    assert_eq!(waiting.len(), 1);
    let limits = client.get("/v1/limits").send().await.expect(200).json();
    assert_eq!(limits["unfinished_tasks"]["used"], 0);
    assert_eq!(
        client.stats().await["by_type"]["deliver_webhook"]["pending"],
        1
    );
    assert!(outside.seen().is_empty());
    client
        .post("/v1/task-types/deliver_webhook/resume")
        .send()
        .await
        .expect(200);
    outside.seen_reach(1).await;
}

#[tokio::test]
async fn users_set_secrets_of_their_own_and_two_are_valid_while_they_change() {
    let outside = listening().await;
    let service = setup().start().await;
    let client = service.client().user("ada");
    let secret = async |body: Value| {
        let reply = client.put("/v1/webhook-secret").json(&body).send().await;
        reply.expect(200).json()
    };
    let known = async || {
        client
            .get("/v1/webhook-secret")
            .send()
            .await
            .expect(200)
            .json()
    };
    let mut count = 0;
    let mut signed_with = async |client: &Client| {
        count += 1;
        client
            .submit_keyless(&echo(count, &outside.url(&format!("/{count}"))))
            .await;
        let seen = outside.seen_reach(count as usize).await;
        let path = format!("/{count}");
        seen.into_iter().find(|one| one.path == path).unwrap()
    };
    assert_eq!(
        known().await,
        json!({"set_at": null, "previous_valid_until": null})
    );
    let first = secret(json!({"secret": OTHER})).await;
    assert!(first["set_at"].is_string() && first["previous_valid_until"].is_string());
    assert!(first["secret"].is_null());
    // Of the same once more, nothing comes.
    assert_eq!(
        secret(json!({"secret": OTHER, "overlap_seconds": 0})).await,
        first
    );
    assert_eq!(known().await, first);
    // The installation's is valid for a day, and so are two signatures.
    let seen = signed_with(&client).await;
    assert_eq!(
        seen.header("webhook-signature").unwrap().split(' ').count(),
        2
    );
    assert!(is_genuine(OTHER, &seen).await && is_genuine(SECRET, &seen).await);
    assert!(!is_genuine(THIRD, &seen).await);
    secret(json!({"secret": THIRD})).await;
    let seen = signed_with(&client).await;
    assert!(is_genuine(OTHER, &seen).await && is_genuine(THIRD, &seen).await);
    assert!(!is_genuine(SECRET, &seen).await);
    let made = secret(json!({"overlap_seconds": 0})).await;
    let made = made["secret"].as_str().unwrap();
    let seen = signed_with(&client).await;
    assert_eq!(
        seen.header("webhook-signature").unwrap().split(' ').count(),
        1
    );
    assert!(is_genuine(made, &seen).await && !is_genuine(THIRD, &seen).await);
    // Notifications are signed with it, too; those of others are not.
    let notification = json!({"type": "send_notification", "params": {
        "channel": "webhook", "to": outside.url("/note"), "body": "x",
    }});
    client.submit_keyless(&notification).await;
    let seen = outside.seen_reach(4).await.pop().unwrap();
    assert_eq!(seen.path, "/note");
    assert!(is_genuine(made, &seen).await);
    service
        .client()
        .user("bob")
        .submit_keyless(&notification)
        .await;
    let seen = outside.seen_reach(5).await.pop().unwrap();
    assert!(is_genuine(SECRET, &seen).await && !is_genuine(made, &seen).await);
    let text = client.get("/v1/webhook-secret").send().await.text();
    assert!(!text.contains("whsec_"), "{text}");
    assert!(!service.log_text().contains(&made[6..]));
    for (body, pointer) in [
        (json!({"secret": "whsec_x"}), "/secret"),
        (json!({"secret": 7}), "/secret"),
        (json!({"overlap_seconds": -1}), "/overlap_seconds"),
        (json!({"overlap_seconds": 2_592_001}), "/overlap_seconds"),
        (json!({"other": 1}), "/other"),
    ] {
        let reply = client.put("/v1/webhook-secret").json(&body).send().await;
        assert_eq!(
            reply.problem(422, "validation-failed")["errors"][0]["pointer"],
            pointer
        );
    }
    // It outlives the process.
    let before = known().await;
    let service = service.kill().await.start().await;
    let client = service.client().user("ada");
    let after = client
        .get("/v1/webhook-secret")
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_kill_between_an_end_and_its_delivery_loses_and_doubles_none() {
    const TASKS: u32 = 40;
    let outside = listening().await;
    let config = format!("{FAST}lease_seconds = 1\n[task_types.echo]\nlease_seconds = 1\n");
    let mut service = setup().config(&config).start().await;
    let mut ids = Vec::new();
    for round in 0..4 {
        let client = service.client();
        // The deliveries wait until the kill.
        client
            .post("/v1/task-types/deliver_webhook/pause")
            .send()
            .await
            .expect(200);
        let first = round * TASKS;
        let tasks: Vec<_> = (first..first + TASKS)
            .map(|n| echo(n, &outside.url(&format!("/{n}"))))
            .collect();
        let replies = join_all(tasks.iter().map(|task| client.submit_keyless(task))).await;
        ids.extend(replies.iter().map(|reply| reply.id()));
        // Some have ended, and some have not.
        client
            .ended(&ids[(first + round * TASKS / 4) as usize])
            .await;
        service = service.kill().await.start().await;
        let client = service.client();
        client
            .post("/v1/task-types/deliver_webhook/resume")
            .send()
            .await
            .expect(200);
    }
    let client = service.client();
    for id in &ids {
        assert_eq!(client.ended(id).await["state"], "succeeded");
        assert_eq!(delivered(&client, id).await.len(), 1);
    }
    // What was under way when the process was killed may have come twice, as the same message.
    let messages = messages(&outside.seen());
    assert_eq!(messages.len(), ids.len());
    let told: BTreeSet<_> = messages
        .values()
        .map(|(_, told)| told["data"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(told, ids.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn a_target_that_hangs_leaves_others_their_turn() {
    let hangs = Outside::start(|_, _| Does::Waits(Vec::new())).await;
    let outside = listening().await;
    let service = setup().start().await;
    let (client, other) = (service.client(), service.client().user("other"));
    // More than may be on their way at a time, three times over.
    let tasks: Vec<_> = (0..600).map(|n| echo(n, &hangs.url("/"))).collect();
    let batch = client
        .post("/v1/tasks/batch")
        .json(&json!(tasks))
        .send()
        .await;
    batch.expect(200);
    // Their share of what waits is 192; less room than for 32 is left until more have ended.
    hangs.seen_reach(161).await;
    let note = json!({"type": "send_notification", "params": {
        "channel": "webhook", "to": outside.url("/note"), "body": "x",
    }});
    other.submit_keyless(&note).await;
    outside.seen_reach(1).await;
    // Another's callback waits until the first are given up, and for no more than that.
    other.submit_keyless(&echo(1, &outside.url("/told"))).await;
    outside.seen_reach(2).await;
    // The share of deliveries in all that waits, and the few that try a silent target after those.
    let waited = hangs.seen().len();
    assert!(
        (161..=192 + 2 * 8).contains(&waited),
        "{waited} have waited"
    );
}

#[tokio::test]
async fn callbacks_and_webhooks_are_documented() {
    let service = Setup::new().start().await;
    let document = service
        .client()
        .get("/openapi.json")
        .send()
        .await
        .expect(200)
        .json();
    let callback = &document["paths"]["/v1/tasks"]["post"]["callbacks"]["taskEnded"];
    let request = &callback["{$request.body#/callback_url}"]["post"]["requestBody"];
    let schema = &request["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(schema, "#/components/schemas/TaskEnd");
    let end = &document["components"]["schemas"]["TaskEnd"]["properties"];
    assert_eq!(end["data"]["$ref"], "#/components/schemas/Task");
    let names = &document["components"]["schemas"]["TaskEndType"]["enum"];
    assert_eq!(
        *names,
        json!(["task.succeeded", "task.failed", "task.cancelled"])
    );
    for name in ["taskEnded", "notification"] {
        assert!(document["webhooks"][name]["post"].is_object(), "{name}");
    }
    let paths = &document["paths"]["/v1/webhook-secret"];
    assert!(paths["put"].is_object() && paths["get"].is_object());
}
