//! Attempts: how many, how far apart, and what ends them for good.

use justonce::domain::timestamp::Timestamp;
use serde_json::json;

use crate::support::{Setup, World};

fn with_command(name: &str, runner: &str, more: &str) -> Setup {
    Setup::new().config(&format!(
        "[task_types.{name}]\nrunner = {{ {runner} }}\n{more}\n"
    ))
}

/// A program that records its run and ends with `status`.
fn ending(world: &World, status: u8) -> String {
    let script =
        format!("printf '%s\\n' \"$task\" >> \"$world/runs\"\necho broken >&2\nexit {status}");
    world.command("ending", &script)
}

const AT_ONCE: &str = "retry = { first_delay_seconds = 0.02 }";

#[tokio::test]
async fn three_retries_are_four_attempts_and_not_one_more() {
    let world = World::new();
    let runner = ending(&world, 75);
    let setup = with_command("busy", &runner, AT_ONCE).env("MAX_RETRY_COUNT", "3");
    let service = setup.start().await;
    let client = service.client();
    let id = client.submit(&json!({"type": "busy"}), "k").await.id();
    let failed = client.ended(&id).await;
    assert_eq!(failed["state"], "failed");
    assert_eq!(
        (&failed["attempt"], &failed["max_attempts"]),
        (&json!(4), &json!(4))
    );
    let error = &failed["error"];
    assert_eq!(
        (&error["attempt"], &error["permanent"]),
        (&json!(4), &json!(false))
    );
    assert!(
        error["code"].is_string() && error["message"].is_string(),
        "{failed}"
    );
    let attempts: Vec<_> = world
        .runs()
        .iter()
        .map(|run| run["attempt"].as_u64().unwrap())
        .collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    let tokens: Vec<_> = world
        .runs()
        .iter()
        .map(|run| run["fencing_token"].as_u64().unwrap())
        .collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert!(world.runs().iter().all(|run| run["idempotency_key"] == "k"));
}

#[tokio::test]
async fn the_limit_of_the_environment_is_kept_exactly() {
    for (retries, attempts) in [("0", 1), ("1", 2)] {
        let world = World::new();
        let runner = ending(&world, 1);
        let setup = with_command("busy", &runner, AT_ONCE).env("MAX_RETRY_COUNT", retries);
        let service = setup.start().await;
        let client = service.client();
        let id = client.submit_keyless(&json!({"type": "busy"})).await.id();
        let failed = client.ended(&id).await;
        assert_eq!(
            (&failed["state"], &failed["attempt"]),
            (&json!("failed"), &json!(attempts))
        );
        assert_eq!(world.runs().len(), attempts);
    }
}

#[tokio::test]
async fn a_task_that_fails_at_first_succeeds_in_the_end() {
    let config = "[task_types.echo]\nretry = { first_delay_seconds = 0.02 }\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let done = client.echo(json!({"fail_times": 2, "x": 1})).await;
    assert_eq!(
        (&done["state"], &done["attempt"]),
        (&json!("succeeded"), &json!(3))
    );
    assert_eq!(done["error"], json!(null));
    let stats = client.stats().await;
    assert_eq!(stats["windows"]["all"]["attempts"], 3);
    assert_eq!(stats["windows"]["all"]["retries"], 2);
}

#[tokio::test]
async fn a_permanent_error_is_not_retried() {
    let world = World::new();
    let runner = ending(&world, 65);
    let service = with_command("broken", &runner, AT_ONCE).start().await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "broken"})).await.id();
    let failed = client.ended(&id).await;
    assert_eq!(
        (&failed["state"], &failed["attempt"]),
        (&json!("failed"), &json!(1))
    );
    assert_eq!(failed["error"]["permanent"], true);
    assert_eq!(world.runs().len(), 1);
}

#[tokio::test]
async fn the_default_backoff_is_a_minute_give_or_take_a_tenth() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"fail_times": 1}});
    let id = client.submit(&task, "k").await.id();
    let retrying = client.in_state(&id, "retrying").await;
    let at = |member: &str| Timestamp::parse_rfc3339(retrying[member].as_str().unwrap()).unwrap();
    // The attempt began, failed and was put off: no earlier than 54 s after its start, and as long after
    // its failure, which came before we looked.
    let wait = at("next_attempt_at").since(at("started_at")).as_secs_f64();
    assert!(wait >= 54.0, "{wait}");
    let generated = client.stats().await["generated_at"]
        .as_str()
        .unwrap()
        .to_owned();
    let now = Timestamp::parse_rfc3339(&generated).unwrap();
    let ahead = at("next_attempt_at").since(now).as_secs_f64();
    assert!(ahead <= 66.0, "{ahead}");
    assert_eq!(retrying["error"]["attempt"], 1);
    // A retrying task answers for its content.
    assert_eq!(client.submit_keyless(&task).await.expect(202).id(), id);
}

#[tokio::test]
async fn the_first_delay_of_the_environment_is_the_default() {
    let service = Setup::new().env("RETRY_DELAY_SECONDS", "600").start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"fail_times": 1}});
    let id = client.submit(&task, "k").await.id();
    let retrying = client.in_state(&id, "retrying").await;
    let at = |member: &str| Timestamp::parse_rfc3339(retrying[member].as_str().unwrap()).unwrap();
    assert!(at("next_attempt_at").since(at("started_at")).as_secs() >= 540);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_stopped_and_retried() {
    let world = World::new();
    let runner = world.gate("gate");
    let more = "timeout_seconds = 1\nretry = { max_attempts = 2, first_delay_seconds = 0.02 }";
    let service = with_command("slow", &runner, more).start().await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "slow"})).await.id();
    let failed = client.ended(&id).await;
    assert_eq!(
        (&failed["state"], &failed["attempt"]),
        (&json!("failed"), &json!(2))
    );
    let code = failed["error"]["code"].as_str().unwrap();
    assert!(code.contains("time"), "{failed}");
    assert_eq!(world.runs().len(), 2);
}

#[tokio::test]
async fn what_is_no_result_fails_the_attempt() {
    let cases = [
        ("words", "echo done"),
        ("cut", "printf '{\"a\":'"),
        ("gone", "kill -9 $$"),
    ];
    for (name, script) in cases {
        let world = World::new();
        let runner = world.command(name, script);
        let more = "retry = { max_attempts = 1 }";
        let service = with_command(name, &runner, more).start().await;
        let client = service.client();
        let id = client.submit_keyless(&json!({"type": name})).await.id();
        let ended = client.ended(&id).await;
        assert_eq!(ended["state"], "failed", "{name}: {ended}");
        assert!(ended["error"]["message"].is_string(), "{name}: {ended}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_clearly() {
    let runner = "command = [\"/no/such/program\"]";
    let service = with_command("missing", runner, "retry = { max_attempts = 1 }")
        .start()
        .await;
    let client = service.client();
    let id = client
        .submit_keyless(&json!({"type": "missing"}))
        .await
        .id();
    assert_eq!(client.ended(&id).await["state"], "failed");
    assert_eq!(
        client.echo(json!({"alive": true})).await["state"],
        "succeeded"
    );
}

#[tokio::test]
async fn a_program_that_floods_its_output_is_stopped() {
    let world = World::new();
    let runner = world.command("flood", "yes 'a line that is no result'");
    let more = "retry = { max_attempts = 1 }\ntimeout_seconds = 30";
    let service = with_command("flood", &runner, more).start().await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "flood"})).await.id();
    assert_eq!(client.ended(&id).await["state"], "failed");
    assert_eq!(
        client.echo(json!({"alive": true})).await["state"],
        "succeeded"
    );
}

#[tokio::test]
async fn a_program_sees_its_file_and_nothing_of_the_services_environment() {
    let world = World::new();
    let script = "path=$(printf '%s' \"$task\" | sed 's/.*\"path\":\"\\([^\"]*\\)\".*/\\1/')\n\
        names=$(env | cut -d= -f1 | tr '\\n' ' ')\n\
        printf '{\"bytes\": \"%s\", \"names\": \"%s\"}\\n' \"$(cat \"$path\")\" \"$names\"";
    let runner = world.command("reader", script);
    let service = with_command("reader", &runner, "")
        .env(
            "JUSTONCE_BOOTSTRAP_KEY",
            "jo_planted000001_plantedsecretplantedsecret",
        )
        .start()
        .await;
    let client = service.client();
    let upload = client
        .post("/v1/files?type=reader&filename=..%2Fx.txt")
        .body("the bytes")
        .send()
        .await;
    let done = client.ended(&upload.id()).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(done["result"]["bytes"], "the bytes");
    let names = done["result"]["names"].as_str().unwrap();
    assert!(!names.contains("JUSTONCE"), "{names}");
}

#[tokio::test]
async fn the_last_progress_is_kept() {
    let script = "for i in $(seq 1 50); do echo \"{\\\"progress\\\": {\\\"done\\\": $i, \\\"total\\\": 50}}\"; done; echo 1";
    let config =
        format!("[task_types.steps]\nrunner = {{ command = [\"sh\", \"-c\", '''{script}'''] }}\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let id = client.submit_keyless(&json!({"type": "steps"})).await.id();
    let ended = client.ended(&id).await;
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["progress"]["done"], 50.0);
}
