//! Cancel, redrive, forget, priorities and start times.

use justonce::domain::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::{Client, Reply, Setup, World};

fn gated(world: &World) -> Setup {
    let runner = world.gate("gate");
    Setup::new().config(&format!("[task_types.gated]\nrunner = {{ {runner} }}\n"))
}

async fn post(client: &Client, id: &str, verb: &str) -> Reply {
    client.post(&format!("/v1/tasks/{id}/{verb}")).send().await
}

fn at(task: &Value, member: &str) -> Timestamp {
    Timestamp::parse_rfc3339(task[member].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_queued_task_is_cancelled_and_never_runs() {
    let world = World::new();
    let service = gated(&world).env("JUSTONCE_WORKERS", "1").start().await;
    let client = service.client();
    let first = client
        .submit(&json!({"type": "gated", "params": {"n": 1}}), "1")
        .await
        .id();
    world.runs_reach(1).await;
    let queued = client
        .submit(&json!({"type": "gated", "params": {"n": 2}}), "2")
        .await
        .id();
    let cancelled = post(&client, &queued, "cancel").await.expect(200).json();
    assert_eq!(cancelled["state"], "cancelled");
    world.open_gate();
    client.ended(&first).await;
    let last = client
        .submit(&json!({"type": "gated", "params": {"n": 3}}), "3")
        .await
        .id();
    client.ended(&last).await;
    assert_eq!(world.runs().len(), 2, "a cancelled task ran");
    post(&client, &queued, "cancel").await.expect(200);
    post(&client, &first, "cancel")
        .await
        .problem(409, "task-ended");
}

#[tokio::test]
async fn a_running_task_is_stopped_and_its_content_waits_for_that() {
    let world = World::new();
    let runner = world.command(
        "stubborn",
        "trap '' TERM\nprintf '%s\\n' \"$task\" >> \"$world/runs\"\n\
         while [ ! -e \"$world/open\" ]; do sleep 0.02; done\necho '{\"late\": true}'",
    );
    let config = format!("[task_types.stubborn]\nrunner = {{ {runner} }}\nlease_seconds = 2\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let task = json!({"type": "stubborn"});
    let id = client.submit(&task, "k").await.id();
    world.runs_reach(1).await;
    let cancelled = post(&client, &id, "cancel").await;
    assert!(
        matches!(cancelled.status, 200 | 202),
        "{}",
        cancelled.text()
    );
    assert_eq!(cancelled.json()["state"], "cancelled");
    let anew = until("the content to be free", async || {
        let reply = client.submit_keyless(&task).await;
        (reply.id() != id).then_some(reply.id())
    })
    .await;
    world.open_gate();
    assert_eq!(client.ended(&anew).await["state"], "succeeded");
    let still = client.task(&id).await;
    assert_eq!(
        (&still["state"], &still["result"]),
        (&json!("cancelled"), &Value::Null)
    );
}

#[tokio::test]
async fn a_failed_task_is_redriven_with_a_new_budget() {
    let world = World::new();
    let script = "if [ -e \"$world/open\" ]; then echo '\"mended\"'; else exit 65; fi";
    let runner = world.command("mend", script);
    let config = format!("[task_types.mend]\nrunner = {{ {runner} }}\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let task = json!({"type": "mend"});
    let id = client.submit(&task, "k").await.id();
    let failed = client.ended(&id).await;
    assert_eq!(
        (&failed["state"], &failed["max_attempts"]),
        (&json!("failed"), &json!(4))
    );
    world.open_gate();
    let redriven = post(&client, &id, "redrive").await;
    assert!(matches!(redriven.status, 200 | 202), "{}", redriven.text());
    let done = client.ended(&id).await;
    assert_eq!(
        (&done["state"], &done["attempt"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(
        (&done["result"], &done["max_attempts"]),
        (&json!("mended"), &json!(5))
    );
    post(&client, &id, "redrive")
        .await
        .problem(409, "task-ended");
}

#[tokio::test]
async fn a_redrive_is_blocked_by_a_newer_task_of_the_same_content() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"fail_permanently": true}});
    let old = client.submit(&task, "old").await.id();
    client.ended(&old).await;
    let mut later = task.clone();
    later["delay_seconds"] = json!(3600);
    let new = client.submit(&later, "new").await.expect(202).id();
    let problem = post(&client, &old, "redrive")
        .await
        .problem(409, "duplicate-submission");
    assert!(problem.to_string().contains(&new), "{problem}");
}

#[tokio::test]
async fn many_are_redriven_at_once() {
    let service = Setup::new().start().await;
    let client = service.client();
    for n in 0..5 {
        let team = if n < 3 { "red" } else { "blue" };
        let params = json!({"fail_permanently": true, "n": n});
        let task = json!({"type": "echo", "params": params, "tags": {"team": team}});
        let id = client.submit_keyless(&task).await.id();
        client.ended(&id).await;
    }
    let redrive = async |body: Value| client.post("/v1/tasks/redrive").json(&body).send().await;
    let red = json!({"type": "echo", "tag": "team:red", "limit": 100});
    assert_eq!(
        redrive(red).await.expect(200).json(),
        json!({"redriven": 3})
    );
    until("the redriven to fail again", async || {
        let failed = client.list("state=failed").await;
        (failed.len() == 5).then_some(())
    })
    .await;
    let attempts = client.list("tag=team:red").await;
    assert!(
        attempts.iter().all(|task| task["attempt"] == 2),
        "{attempts:?}"
    );
    let none = json!({"type": "echo", "tag": "team:green", "limit": 100});
    assert_eq!(
        redrive(none).await.expect(200).json(),
        json!({"redriven": 0})
    );
    assert_eq!(redrive(json!({"surprise": 1})).await.status, 422);
}

#[tokio::test]
async fn a_forgotten_task_is_gone_with_its_keys_and_its_content_is_new() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"f": 1}});
    let id = client.submit(&task, "k").await.id();
    client.ended(&id).await;
    let path = format!("/v1/tasks/{id}");
    client.delete(&path).send().await.expect(204);
    client
        .get(&path)
        .send()
        .await
        .problem(410, "task-forgotten");
    client
        .get(&format!("{path}/result"))
        .send()
        .await
        .problem(410, "task-forgotten");
    client
        .submit(&task, "k")
        .await
        .problem(410, "task-forgotten");
    let anew = client.submit(&task, "new").await.expect(202);
    assert_ne!(anew.id(), id);
    // Also after a restart.
    let service = service.kill().await.start().await;
    let client = service.client();
    client
        .get(&path)
        .send()
        .await
        .problem(410, "task-forgotten");
    client
        .submit(&task, "k")
        .await
        .problem(410, "task-forgotten");
}

#[tokio::test]
async fn an_unfinished_task_is_not_forgotten() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let id = client.submit(&json!({"type": "echo"}), "k").await.id();
    client
        .delete(&format!("/v1/tasks/{id}"))
        .send()
        .await
        .problem(409, "task-unfinished");
    assert_eq!(client.task(&id).await["state"], "queued");
}

#[tokio::test]
async fn the_most_important_runs_first_and_equals_in_their_order() {
    let world = World::new();
    let runner = world.recorder("record");
    let config = format!("[task_types.record]\nrunner = {{ {runner} }}\n");
    // The order is fixed by submissions while nothing runs, and seen when one worker takes them up.
    let service = Setup::new()
        .config(&config)
        .env("JUSTONCE_WORKERS", "0")
        .start()
        .await;
    let client = service.client();
    let mut expected = Vec::new();
    for (n, priority) in [4, 9, 0, 4, 0, 9, 1].into_iter().enumerate() {
        let task = json!({"type": "record", "params": {"n": n}, "priority": priority});
        client.submit_keyless(&task).await.expect(202);
        expected.push((priority, n as u64));
    }
    expected.sort_unstable();
    let setup = service.kill().await.env("JUSTONCE_WORKERS", "1");
    let _service = setup.start().await;
    let runs = world.runs_reach(expected.len()).await;
    let order: Vec<_> = runs
        .iter()
        .map(|run| run["params"]["n"].as_u64().unwrap())
        .collect();
    let expected: Vec<_> = expected.into_iter().map(|(_, n)| n).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_task_starts_when_it_was_asked_to() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"s": 1}, "delay_seconds": 1});
    let accepted = client.submit(&task, "k").await.expect(202).json();
    assert_eq!(accepted["state"], "scheduled");
    let done = client.ended(accepted["id"].as_str().unwrap()).await;
    assert!(
        at(&done, "started_at") >= at(&done, "scheduled_at"),
        "it began too early: {done}"
    );
    assert!(
        at(&done, "scheduled_at")
            .since(at(&done, "created_at"))
            .as_millis()
            >= 1000
    );

    // A start time is identity, a delay is not.
    let with = |run_at: &str| json!({"type": "echo", "params": {"s": 2}, "run_at": run_at});
    let soon = client.submit_keyless(&with("2099-01-01T00:00:00Z")).await;
    // More than a year ahead is refused; so is what is no time.
    soon.problem(422, "validation-failed");
    let past = client
        .submit_keyless(&with("2001-01-01T00:00:00Z"))
        .await
        .expect(202);
    assert_eq!(client.ended(&past.id()).await["state"], "succeeded");
    let spelled = client
        .submit_keyless(&with("2001-01-01T01:00:00+01:00"))
        .await;
    assert_eq!(spelled.id(), past.id(), "one instant, two spellings");
    let now = client
        .submit_keyless(&json!({"type": "echo", "params": {"s": 2}}))
        .await;
    assert_ne!(now.id(), past.id());
}

#[tokio::test]
async fn a_scheduled_task_survives_a_restart() {
    let service = Setup::new().start().await;
    let task = json!({"type": "echo", "delay_seconds": 1});
    let id = service.client().submit(&task, "k").await.id();
    let service = service.kill().await.start().await;
    assert_eq!(service.client().ended(&id).await["state"], "succeeded");
}

#[tokio::test]
async fn progress_of_a_command_is_seen_while_it_runs() {
    let world = World::new();
    let runner = world.command(
        "steps",
        "echo '{\"progress\": {\"done\": 3, \"total\": 10, \"message\": \"rows\"}}'\n\
         while [ ! -e \"$world/open\" ]; do sleep 0.02; done\necho '{\"rows\": 10}'",
    );
    let config = format!("[task_types.steps]\nrunner = {{ {runner} }}\nlease_seconds = 2\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "steps"})).await.id();
    let progress = until("progress", async || {
        let task = client.task(&id).await;
        task["progress"]
            .is_object()
            .then(|| task["progress"].clone())
    })
    .await;
    assert_eq!(
        (&progress["message"], progress["done"].as_f64()),
        (&json!("rows"), Some(3.0))
    );
    assert_eq!(progress["total"].as_f64(), Some(10.0));
    world.open_gate();
    assert_eq!(client.ended(&id).await["result"], json!({"rows": 10}));
}
