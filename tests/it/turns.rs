//! Who is next, as users and operators see it: turns, bounds and rates of the configuration file.

use justonce::domain::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::deadline::within;
use crate::support::leasing::{FAR, Worker};
use crate::support::outside::{Does, Outside, says};
use crate::support::{Client, Service, Setup, World};

async fn with(lines: &str) -> Service {
    Setup::new()
        .config(&format!("{FAR}{lines}\n"))
        .start()
        .await
}

async fn submit(client: &Client, params: Value) -> String {
    let task = json!({"type": "far", "params": params});
    client.submit_keyless(&task).await.id()
}

async fn declared(client: &Client, name: &str) -> Value {
    let list = client.get("/v1/task-types").send().await.expect(200).json();
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .find(|item| item["name"] == name)
        .unwrap()
        .clone()
}

#[tokio::test]
async fn what_a_type_bounds_is_shown() {
    let service = Setup::new()
        .env("JUSTONCE_PRIORITY_AGEING_SECONDS", "2.5")
        .config(&format!(
            "{FAR}concurrency_key = \"/url\"\nconcurrency_per_user = 2\n\
             rate = {{ attempts = 100, seconds = 60 }}\nrate_per_user = {{ attempts = 5, seconds = 0.5 }}\n"
        ))
        .start()
        .await;
    let client = service.client();
    let far = declared(&client, "far").await;
    assert_eq!(far["concurrency_key"], "/url");
    assert_eq!(far["concurrency_per_user"], 2);
    assert_eq!(far["rate"], json!({"attempts": 100, "seconds": 60.0}));
    assert_eq!(far["rate_per_user"], json!({"attempts": 5, "seconds": 0.5}));
    assert_eq!(far["priority_ageing_seconds"], 2.5);
    let echo = declared(&client, "echo").await;
    for bound in [
        "concurrency_key",
        "concurrency_per_user",
        "rate",
        "rate_per_user",
    ] {
        assert_eq!(echo[bound], Value::Null, "{bound}");
    }
    assert_eq!(
        declared(&client, "scrape_website").await["concurrency_key"],
        "/url"
    );
}

#[tokio::test]
async fn users_take_turns_whatever_lies_before_them() {
    let service = with("").await;
    let client = service.client();
    let items: Vec<Value> = (0..1_000)
        .map(|n| json!({"type": "far", "params": {"n": n}}))
        .collect();
    for _ in 0..2 {
        let flood = client.user("flood").post("/v1/tasks/batch");
        flood
            .json(&Value::Array(items.clone()))
            .send()
            .await
            .expect(200);
    }
    let modest = client.user("modest");
    submit(&modest, json!({"n": 1})).await;
    let leases = Worker::of(&service).lease(json!({"max": 2})).await;
    let users: Vec<_> = leases.iter().map(|lease| &lease.task["user"]).collect();
    assert!(users.contains(&&json!("modest")), "{users:?}");
}

#[tokio::test]
async fn a_worker_that_waits_hears_of_a_user_who_may_go_on() {
    let service = with("concurrency_per_user = 1").await;
    let client = service.client();
    for n in 0..2 {
        submit(&client, json!({ "n": n })).await;
    }
    let worker = Worker::of(&service);
    let first = worker.lease(json!({"max": 9})).await;
    assert_eq!(first.len(), 1);
    let waits = worker.lease(json!({"max": 9, "wait": 30}));
    let ends = async {
        worker.complete(&first[0], json!(1)).await.expect(200);
    };
    let (second, ()) = tokio::join!(waits, ends);
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].task["id"], first[0].task["id"]);
}

#[tokio::test]
async fn a_worker_that_waits_hears_when_a_rate_allows_more() {
    for rate in ["rate", "rate_per_user"] {
        let service = with(&format!("{rate} = {{ attempts = 1, seconds = 0.5 }}")).await;
        let client = service.client();
        for n in 0..3 {
            submit(&client, json!({ "n": n })).await;
        }
        let worker = Worker::of(&service);
        let mut started = Vec::new();
        for _ in 0..3 {
            let leases = worker.lease(json!({"max": 9, "wait": 30})).await;
            assert_eq!(leases.len(), 1, "{rate}");
            started.push(leases[0].task["started_at"].as_str().unwrap().to_owned());
        }
        let ms = |text: &String| Timestamp::parse_rfc3339(text).unwrap().as_ms();
        for two in started.windows(2) {
            assert!(ms(&two[1]) - ms(&two[0]) >= 500, "{rate}: {started:?}");
        }
    }
}

#[tokio::test]
async fn programs_with_one_concurrency_key_run_one_after_the_other() {
    let world = World::new();
    let gate = world.gate("gate");
    let config = format!("[task_types.gate]\nrunner = {{ {gate} }}\nconcurrency_key = \"/to\"\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let mut ids = Vec::new();
    for (n, to) in [(1, "a"), (2, "a"), (3, "b")] {
        let task = json!({"type": "gate", "params": {"n": n, "to": to}});
        ids.push(client.submit_keyless(&task).await.id());
    }
    let runs = world.runs_reach(2).await;
    let running: Vec<_> = runs.iter().map(|run| run["params"]["n"].clone()).collect();
    assert!(
        running.contains(&json!(1)) && running.contains(&json!(3)),
        "{running:?}"
    );
    assert_eq!(client.task(&ids[1]).await["state"], "queued");
    world.open_gate();
    for id in &ids {
        assert_eq!(client.ended(id).await["state"], "succeeded");
    }
    assert_eq!(world.runs().len(), 3);
}

#[tokio::test]
async fn a_page_is_fetched_once_at_a_time() {
    let outside = Outside::start(|seen, before| match (seen.path.as_str(), before) {
        ("/page", 0) => Does::Waits(Vec::new()),
        _ => says(200, "content-type: text/plain\r\n", "text"),
    })
    .await;
    let config = "[egress]\nallow = [\"127.0.0.1\"]\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let scrape = async |path: &str| {
        let params = json!({"url": outside.url(path)});
        let task = json!({"type": "scrape_website", "params": params, "dedup": {"mode": "none"}});
        client.submit_keyless(&task).await.id()
    };
    let first = scrape("/page").await;
    outside.seen_reach(1).await;
    let second = scrape("/page").await;
    let other = scrape("/other").await;
    assert_eq!(client.ended(&other).await["state"], "succeeded");
    assert_eq!(client.task(&second).await["state"], "queued");
    assert_eq!(
        outside.seen().len(),
        2,
        "the page was fetched twice at a time"
    );
    let cancel = client.post(&format!("/v1/tasks/{first}/cancel"));
    cancel.send().await.expect(200);
    assert_eq!(client.ended(&second).await["state"], "succeeded");
}

#[tokio::test]
async fn mistakes_in_bounds_are_shown_with_their_line() {
    for (line, said) in [
        (
            "concurrency_per_user = 0",
            "concurrency_per_user must be above 0",
        ),
        ("concurrency_key = \"url\"", "is no JSON pointer"),
        (
            "rate = { attempts = 0, seconds = 1 }",
            "attempts of a rate are 1 to 10000",
        ),
        (
            "rate_per_user = { attempts = 1, seconds = 0 }",
            "seconds of a rate are 0.01 to 86400",
        ),
        ("rate = { attempts = 1 }", "seconds"),
    ] {
        let setup = Setup::new().config(&format!("{FAR}{line}\n"));
        let output = setup.command().output().await.unwrap();
        assert!(!output.status.success(), "{line}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("line 3") && text.contains(said),
            "{line}: {text}"
        );
    }
    // Deliveries carry none: it would bound nothing.
    let keyed = "[task_types.deliver_webhook]\nconcurrency_key = \"/url\"\n";
    let output = Setup::new().config(keyed).command().output().await.unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("line 2") && text.contains("deliveries have no concurrency_key"),
        "{text}"
    );
}

#[tokio::test]
async fn the_doctor_finds_nothing_wrong_with_what_waits() {
    let service = with("concurrency_key = \"/k\"\nconcurrency_per_user = 2").await;
    let client = service.client();
    for n in 0..6 {
        submit(&client, json!({"n": n, "k": n % 2})).await;
    }
    let worker = Worker::of(&service);
    assert_eq!(worker.lease(json!({"max": 9})).await.len(), 2);
    let mut command = service.setup().command();
    command.arg("doctor");
    let output = within("the doctor", command.output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
}
