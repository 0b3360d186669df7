//! Looking back and cleaning up, with numbers that are held against what was submitted.

use std::collections::HashMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::{Client, Setup};

const SECOND: i64 = 1000;

/// RFC 3339, so far from now.
fn time(offset_ms: i64) -> String {
    let now = jiff::Timestamp::now().as_millisecond();
    let at = jiff::Timestamp::from_millisecond(now + offset_ms).unwrap();
    at.to_string()
}

/// The last ten minutes, and the next.
fn report(format: &str) -> Value {
    let (from, to) = (time(-600 * SECOND), time(600 * SECOND));
    json!({"type": "generate_analytics_report", "params": {"from": from, "to": to, "format": format}})
}

async fn run(client: &Client, task: &Value) -> Value {
    let id = client.submit_keyless(task).await.id();
    let task = client.ended(&id).await;
    assert_eq!(task["state"], "succeeded", "{task}");
    task["result"].clone()
}

fn echo(params: Value) -> Value {
    json!({"type": "echo", "params": params})
}

#[tokio::test]
async fn a_report_says_what_was_submitted_and_saved() {
    let service = Setup::new().env("RETRY_DELAY_SECONDS", "1").start().await;
    let client = service.client();
    // Four new tasks; two duplicates by key and three by content of the first, which has ended by then.
    let first = client.submit(&echo(json!({"n": 1})), "first").await.id();
    client.ended(&first).await;
    for key in ["first", "first", "other", "another", "third"] {
        client.submit(&echo(json!({"n": 1})), key).await.expect(200);
    }
    client.echo(json!({"n": 2})).await;
    let failed = client.echo(json!({"fail_permanently": true})).await;
    assert_eq!(failed["state"], "failed");
    let retried = client.echo(json!({"fail_times": 1})).await;
    assert_eq!(
        (&retried["state"], &retried["attempt"]),
        (&json!("succeeded"), &json!(2))
    );
    // The same bytes twice.
    for status in [202, 200] {
        let file = client
            .post("/v1/files?type=echo&filename=a.txt")
            .body("twelve bytes");
        let reply = file.send().await.expect(status);
        client.ended(&reply.id()).await;
    }
    let foreign = client
        .post("/v1/tasks")
        .header("x-user-id", "other")
        .json(&echo(json!({})));
    foreign.send().await.expect(202);

    let told = run(&client, &report("json")).await;
    assert_eq!(
        (&told["status"], &told["format"]),
        (&json!("success"), &json!("json"))
    );
    let numbers = &told["report"];
    let totals = &numbers["totals"];
    // The report is a task itself.
    for (name, expected) in [
        ("accepted", 6),
        ("duplicates_by_key", 2),
        ("duplicates_by_content", 4),
        ("cache_hits", 6),
        ("attempts", 7),
        ("retries", 1),
        ("failures", 1),
        ("saved_executions", 6),
        ("saved_bytes_not_stored", 12),
    ] {
        assert_eq!(totals[name], expected, "{name}: {totals}");
    }
    assert_eq!(totals["dedup_rate"], 0.5, "{totals}");
    let in_buckets = numbers["buckets"].as_array().unwrap().iter();
    let accepted = in_buckets.map(|bucket| bucket["accepted"].as_u64().unwrap());
    assert_eq!(accepted.sum::<u64>(), 6);
    assert_eq!(numbers["period"]["bucket_seconds"], 300);
    assert_eq!(numbers["period"]["is_cut"], false);
    let by_type = numbers["by_type"].as_array().unwrap();
    let echoes = by_type.iter().find(|t| t["type"] == "echo").unwrap();
    assert_eq!(
        (&echoes["total"], &echoes["succeeded"], &echoes["failed"]),
        (&json!(5), &json!(4), &json!(1))
    );
    assert_eq!(numbers["tasks"]["running"], 1);
    assert!(numbers["latency_ms"]["run"]["p99"].as_f64().unwrap() > 0.0);
    let repeated = &numbers["most_repeated"][0];
    assert_eq!(
        (
            &repeated["id"],
            &repeated["duplicates"],
            &repeated["listed_by_key"],
            &repeated["listed_by_content"]
        ),
        (&json!(first), &json!(5), &json!(2), &json!(3))
    );

    let told = run(&client, &report("csv")).await;
    let table = told["content"].as_str().unwrap();
    let lines: Vec<&str> = table.strip_suffix("\r\n").unwrap().split("\r\n").collect();
    assert_eq!(lines[0], "section,at,name,metric,value");
    let mut values = HashMap::new();
    for line in &lines {
        let fields: Vec<&str> = line.split(',').collect();
        let [section, _, name, metric, value] = fields[..] else {
            panic!("not five fields: {line}");
        };
        values.insert((section, name, metric), value);
    }
    assert_eq!(values[&("total", "", "duplicates_by_content")], "4");
    assert_eq!(values[&("total", "", "accepted")], "7");
    assert_eq!(values[&("type", "echo", "failed")], "1");

    let told = run(&client, &report("html")).await;
    let page = told["content"].as_str().unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(page.contains("default-src 'none'") && page.contains(&first));
    for foreign in ["<script", "http://", "https://", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn a_period_must_make_sense() {
    let service = Setup::new().start().await;
    let client = service.client();
    let (earlier, later) = (time(-60 * SECOND), time(0));
    for params in [
        json!({}),
        json!({"from": earlier}),
        json!({"from": "yesterday", "to": later}),
        json!({"from": earlier, "to": later, "format": "pdf"}),
        json!({"from": earlier, "to": later, "user": "other"}),
    ] {
        let task = json!({"type": "generate_analytics_report", "params": params});
        let refused = client.submit_keyless(&task).await;
        refused.problem(422, "validation-failed");
    }
    let week = 7 * 86_400 * SECOND;
    for (from, to, pointer) in [
        (&later, &earlier, "/params/to"),
        (&time(-2 * week), &later, "/params/from"),
        (&time(3600 * SECOND), &time(week), "/params/from"),
    ] {
        let params = json!({"from": from, "to": to});
        let task = json!({"type": "generate_analytics_report", "params": params});
        let problem = client.submit_keyless(&task).await;
        let problem = problem.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let task =
        json!({"type": "generate_analytics_report", "params": {"from": earlier, "to": later}});
    let id = client.submit_keyless(&task).await.id();
    assert_eq!(client.ended(&id).await["max_attempts"], 3);
    for dry_run in [json!("no"), json!(0)] {
        let task = json!({"type": "cleanup_old_data", "params": {"dry_run": dry_run}});
        let refused = client.submit_keyless(&task).await;
        refused.problem(422, "validation-failed");
    }
}

fn clean_up(params: Value) -> Value {
    json!({"type": "cleanup_old_data", "params": params})
}

#[tokio::test]
async fn a_clean_up_says_first_what_it_removes_and_removes_that_alone() {
    let service = Setup::new().start().await;
    let client = service.client();
    let upload = async |path: &str, bytes: &'static str| client.post(path).body(bytes).send().await;
    let kept_key = client.submit(&echo(json!({"n": 1})), "key").await.id();
    client.ended(&kept_key).await;
    let failed = client.echo(json!({"fail_permanently": true})).await;
    let named = upload("/v1/files?type=echo&filename=a", "of an ended task")
        .await
        .id();
    client.ended(&named).await;
    let spare = upload("/v1/files", "of no task").await.expect(201).json();
    let path = "/v1/files?type=echo&filename=b&params=%7B%22sleep_ms%22:600000%7D";
    let running = upload(path, "of a running task").await.id();
    client.in_state(&running, "running").await;
    let foreign = client
        .post("/v1/tasks")
        .header("x-user-id", "other")
        .json(&echo(json!({})));
    let foreign = foreign.send().await.id();
    assert_eq!(service.stored_files().len(), 3);

    let old = run(&client, &clean_up(json!({}))).await;
    assert_eq!(
        (&old["dry_run"], &old["older_than_seconds"]),
        (&json!(true), &json!(86_400))
    );
    assert_eq!(
        (&old["tasks"]["count"], &old["files"]["count"]),
        (&json!(0), &json!(0))
    );
    let said = run(&client, &clean_up(json!({"older_than_seconds": 0}))).await;
    // The clean-up before is an ended task too.
    assert_eq!(
        said["tasks"]["by_state"],
        json!({"succeeded": 3, "failed": 1})
    );
    assert_eq!(
        said["files"],
        json!({"count": 2, "bytes": "of an ended taskof no task".len()})
    );
    assert_eq!(client.list("").await.len(), 6);
    assert_eq!(service.stored_files().len(), 3);

    let done = run(
        &client,
        &clean_up(json!({"older_than_seconds": 0, "dry_run": false})),
    )
    .await;
    assert_eq!(done["dry_run"], false);
    assert_eq!(
        done["tasks"]["by_state"],
        json!({"succeeded": 4, "failed": 1})
    );
    assert_eq!(done["files"], said["files"]);
    assert_eq!(done["more"], false);
    for id in [&kept_key, &named, failed["id"].as_str().unwrap()] {
        let gone = client.get(&format!("/v1/tasks/{id}")).send().await;
        gone.problem(410, "task-forgotten");
    }
    let repeat = client.submit(&echo(json!({"n": 1})), "key").await;
    repeat.problem(410, "task-forgotten");
    assert_eq!(client.task(&running).await["state"], "running");
    let theirs = client
        .get(&format!("/v1/tasks/{foreign}"))
        .header("x-user-id", "other");
    theirs.send().await.expect(200);
    assert_eq!(service.stored_files().len(), 1);
    let sha256 = spare["sha256"].as_str().unwrap();
    client
        .get(&format!("/v1/files/{sha256}"))
        .send()
        .await
        .problem(404, "not-found");

    let again = run(
        &client,
        &clean_up(json!({"older_than_seconds": 0, "dry_run": false})),
    )
    .await;
    // Nothing but the clean-up before.
    assert_eq!(again["tasks"]["by_state"], json!({"succeeded": 1}));
    assert_eq!(again["files"], json!({"count": 0, "bytes": 0}));
}

#[tokio::test]
async fn a_clean_up_goes_on_after_a_crash() {
    const TASKS: usize = 150;
    let service = Setup::new().start().await;
    let client = service.client();
    let submit = |n: usize| {
        let client = &client;
        async move {
            client
                .submit(&echo(json!({"n": n})), &n.to_string())
                .await
                .id()
        }
    };
    let ids = join_all((0..TASKS).map(submit)).await;
    for id in &ids {
        client.ended(id).await;
    }
    let task = clean_up(json!({"older_than_seconds": 0, "dry_run": false}));
    let id = client.submit(&task, "clean up").await.id();
    let count = async |client: &Client| client.list("type=echo&limit=200").await.len();
    until("the first task to go", async || {
        (count(&client).await < TASKS).then_some(())
    })
    .await;
    let service = service.kill().await.start().await;
    let client = service.client();
    let ended = client.ended(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(count(&client).await, 0);
    let gone = client.get(&format!("/v1/tasks/{}", ids[0])).send().await;
    gone.problem(410, "task-forgotten");
}
