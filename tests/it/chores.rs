//! Looking back and cleaning up, with numbers that are held against what was submitted.

use std::collections::HashMap;

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
    let other = client.user("other");
    other.echo(json!({})).await;

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
        ("duplicates_by_fingerprint", 4),
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
    let theirs = run(&other, &report("json")).await;
    adds_up_to_stats(&client, &[totals, &theirs["report"]["totals"]]).await;
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
            &repeated["listed_by_fingerprint"]
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
    assert_eq!(values[&("total", "", "duplicates_by_fingerprint")], "4");
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

/// Without authentication, `/stats` tells of all users.
async fn adds_up_to_stats(client: &Client, totals: &[&Value]) {
    let stats = client.stats().await;
    let all = &stats["windows"]["all"];
    for name in [
        "accepted",
        "duplicates_by_key",
        "duplicates_by_fingerprint",
        "cache_hits",
        "key_reused",
        "attempts",
        "retries",
        "failures",
        "leases_lost",
        "writes_fenced",
        "saved_executions",
        "saved_bytes_not_sent",
        "saved_bytes_not_stored",
    ] {
        let sum: u64 = totals.iter().map(|t| t[name].as_u64().unwrap()).sum();
        let counted = match name.strip_prefix("saved_") {
            Some(name) => &all["saved"][name],
            None => &all[name],
        };
        assert_eq!(*counted, sum, "{name}: {all}");
    }
    let saved = totals.iter().map(|t| t["saved_seconds"].as_f64().unwrap());
    let difference = saved.sum::<f64>() - all["saved"]["seconds"].as_f64().unwrap();
    assert!(difference.abs() < 0.001, "{difference}");
}

#[tokio::test]
async fn a_report_is_made_once() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = report("json");
    let mut csv = task.clone();
    csv["params"]["format"] = json!("csv");
    let first = client.submit(&task, "monday").await.expect(202).id();
    let made = client.ended(&first).await;
    assert_eq!(made["state"], "succeeded");
    client.echo(json!({})).await;
    let replayed = client.submit(&task, "monday").await.expect(200);
    assert_eq!(replayed.header("idempotent-replayed"), Some("true"));
    let by_content = client.submit_keyless(&task).await.expect(200).json();
    assert_eq!(by_content["matched_by"], "fingerprint");
    for again in [&replayed.json(), &by_content] {
        assert_eq!(again["id"], first);
        assert_eq!(again["result"], made["result"]);
    }
    let reused = client.submit(&csv, "monday").await;
    let reused = reused.problem(422, "idempotency-key-reused");
    assert_eq!(reused["differs"], json!(["/params/format"]));
    let other_format = client.submit_keyless(&csv).await.expect(202).id();
    assert_ne!(other_format, first);
    let other_user = client.user("other").submit_keyless(&task).await;
    assert_ne!(other_user.expect(202).id(), first);
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
        json!({"from": earlier, "to": later, "format": null}),
        json!({"from": 1, "to": 2}),
        json!({"from": "2026-02-30T00:00:00Z", "to": later}),
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
    for params in [
        json!({"dry_run": "no"}),
        json!({"dry_run": 0}),
        json!({"older_than_seconds": -1}),
        json!({"older_than_seconds": "1d"}),
        json!({"older_than_seconds": 1e12}),
        json!({"older_than": 1}),
    ] {
        let task = clean_up(params);
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

    // A request that is sent again is told of the same clean-up; another one is made when that is asked for.
    let task = clean_up(json!({"older_than_seconds": 0, "dry_run": false}));
    let repeat = client.submit_keyless(&task).await.expect(200).json();
    assert_eq!(
        (&repeat["matched_by"], &repeat["result"]),
        (&json!("fingerprint"), &done)
    );
    let mut anew = task.clone();
    anew["dedup"] = json!({"mode": "none"});
    let again = run(&client, &anew).await;
    // Nothing but the clean-up before.
    assert_eq!(again["tasks"]["by_state"], json!({"succeeded": 1}));
    assert_eq!(again["files"], json!({"count": 0, "bytes": 0}));
}

#[tokio::test]
async fn a_clean_up_goes_on_after_a_crash() {
    const ROUNDS: usize = 5;
    // So that its lease is over soon after the crash.
    let setup = Setup::new().config("[task_types.cleanup_old_data]\nlease_seconds = 1\n");
    let mut service = setup.start().await;
    for round in 0..ROUNDS {
        let client = service.client();
        let ids = many(&client, round).await;
        let task = clean_up(json!({"older_than_seconds": 0, "dry_run": false}));
        let id = client.submit(&task, &format!("clean-up/{round}")).await;
        let id = id.expect(202).id();
        let newest = format!("/v1/tasks/{}", ids.last().unwrap());
        until("the first task to go", async || {
            let reply = client.get(&newest).send().await;
            (reply.status == 410).then_some(())
        })
        .await;
        service = service.kill().await.start().await;
        let client = service.client();
        let ended = client.ended(&id).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        assert_eq!(client.list("type=echo").await.len(), 0);
        for id in [&ids[0], &ids[ids.len() / 2]] {
            let gone = client.get(&format!("/v1/tasks/{id}")).send().await;
            gone.problem(410, "task-forgotten");
        }
        // Else the crash came when all was done.
        if ended["attempt"] == 2 {
            return;
        }
    }
    panic!("no crash came in the middle of a clean-up");
}

/// Ended tasks, oldest first.
async fn many(client: &Client, round: usize) -> Vec<String> {
    let tasks: Vec<_> = (0..400)
        .map(|n| echo(json!({"round": round, "n": n})))
        .collect();
    let batch = client.post("/v1/tasks/batch").json(&json!(tasks));
    let batch = batch.send().await.expect(200).json();
    let items = batch["items"].as_array().unwrap().iter();
    let ids: Vec<_> = items
        .map(|item| item["task"]["id"].as_str().unwrap().to_owned())
        .collect();
    for id in &ids {
        client.ended(id).await;
    }
    ids
}

fn of_period(params: Value) -> Value {
    json!({"type": "generate_analytics_report", "params": params})
}

#[tokio::test]
async fn a_period_is_counted_back_from_the_submission_or_the_firing() {
    let service = Setup::new().start().await;
    let client = service.client();
    let asked = |task: &Value| {
        let period = &task["result"]["report"]["period"];
        let time = |name: &str| {
            let text = period[name].as_str().unwrap();
            text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
        };
        (time("asked_from"), time("asked_to"))
    };
    let instant = |task: &Value, name: &str| {
        let text = task[name].as_str().unwrap();
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    let last_hour = of_period(json!({"period": "last_hour"}));
    let id = client.submit(&last_hour, "k").await.expect(202).id();
    let task = client.ended(&id).await;
    let created_at = instant(&task, "created_at");
    assert_eq!(asked(&task), (created_at - 3600 * SECOND, created_at));
    // The same word is the same work, within the window.
    let again = client.submit_keyless(&last_hour).await.expect(200);
    assert_eq!(again.id(), id);
    let of_there = json!({"period": "yesterday", "time_zone": "Asia/Tokyo"});
    let reply = client.submit_keyless(&of_period(of_there)).await;
    let task = client.ended(&reply.id()).await;
    let (day, nine_hours) = (86_400 * SECOND, 9 * 3600 * SECOND);
    let there = instant(&task, "created_at") + nine_hours;
    let midnight = there - there.rem_euclid(day) - nine_hours;
    assert_eq!(asked(&task), (midnight - day, midnight));

    let plan = json!({
        "cron": "* * * * * *", "type": "generate_analytics_report", "params": {"period": "last_24h"},
    });
    let put = client.put("/v1/schedules/often").json(&plan).send().await;
    put.expect(201);
    let fired = until("two reports", async || {
        let tasks = client.list("tag=schedule:often&state=succeeded").await;
        (tasks.len() >= 2).then_some(tasks)
    })
    .await;
    let mut periods = std::collections::HashSet::new();
    for task in &fired {
        let task = client.task(task["id"].as_str().unwrap()).await;
        let fired_at = instant(&task, "scheduled_at");
        assert_eq!(fired_at % SECOND, 0);
        assert_eq!(asked(&task), (fired_at - day, fired_at));
        assert!(periods.insert(fired_at));
    }
    for (params, pointer) in [
        (json!({"period": "tomorrow"}), "/params/period"),
        (
            json!({"period": "yesterday", "time_zone": "Mars"}),
            "/params/time_zone",
        ),
        (
            json!({"period": "last_7d", "from": time(0)}),
            "/params/from",
        ),
    ] {
        let refused = client.submit_keyless(&of_period(params)).await;
        let problem = refused.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}
