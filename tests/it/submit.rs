//! Submissions, situation by situation.

use serde_json::json;

use crate::support::{Service, Setup, World};

#[tokio::test]
async fn a_new_submission_is_accepted_and_runs() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"a": [1, "ü", null]}, "tags": {"team": "red"}});
    let reply = client.submit(&task, "first").await.expect(202);
    let id = reply.id();
    assert_eq!(
        reply.header("location"),
        Some(format!("/v1/tasks/{id}").as_str())
    );
    assert!(reply.header("retry-after").unwrap().parse::<u32>().is_ok());
    assert_eq!(reply.header("idempotency-key"), Some("first"));
    assert_eq!(reply.header("durability"), Some("fsync"));
    assert_eq!(reply.header("idempotent-replayed"), None);
    let accepted = reply.json();
    assert_eq!(accepted["deduplicated"], false);
    assert_eq!(accepted["type"], "echo");
    assert_eq!(accepted["user"], "anonymous");
    assert_eq!(accepted["tags"], json!({"team": "red"}));
    assert_eq!(accepted["links"]["self"], format!("/v1/tasks/{id}"));
    let fingerprint = accepted["fingerprint"].as_str().unwrap();
    assert!(
        fingerprint.starts_with("v1:") && fingerprint.len() == 67,
        "{fingerprint}"
    );

    let ended = client.ended(&id).await;
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["result"], json!({"a": [1, "ü", null]}));
    assert_eq!(ended["attempt"], 1);
    assert_eq!(ended["error"], json!(null));
    for at in [
        "created_at",
        "started_at",
        "finished_at",
        "dedup_expires_at",
    ] {
        assert!(ended[at].as_str().unwrap().ends_with('Z'), "{at}: {ended}");
    }
}

#[tokio::test]
async fn the_same_key_and_request_is_a_replay_before_and_after_the_end() {
    let world = World::new();
    let service = gated(&world).start().await;
    let client = service.client();
    let task = json!({"type": "gated", "params": {"n": 1}});
    let id = client.submit(&task, "k").await.expect(202).id();
    let replay = client.submit(&task, "k").await.expect(202);
    assert_eq!(replay.id(), id);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!(replay.header("idempotency-expires"), None);
    assert_eq!(replay.json()["deduplicated"], true);
    assert_eq!(replay.json()["matched_by"], "idempotency_key");
    world.open_gate();
    client.ended(&id).await;
    let replay = client.submit(&task, "k").await.expect(200);
    assert_eq!(replay.id(), id);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!(replay.json()["result"], json!({"ran": true}));
    assert!(replay.header("idempotency-expires").unwrap().ends_with('Z'));
    assert_eq!(world.runs().len(), 1);
}

#[tokio::test]
async fn a_key_used_for_other_content_is_refused_at_any_time_and_names_the_fields() {
    let config = "[task_types.other]\nrunner = { builtin = \"echo\" }\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let first = json!({"type": "echo", "params": {"lang": "secret-de", "same": 1}});
    let other = json!({"type": "echo", "params": {"lang": "en", "same": 1, "new": 2}});
    let id = client.submit(&first, "k").await.id();
    for _ in 0..2 {
        let reply = client.submit(&other, "k").await;
        let problem = reply.problem(422, "idempotency-key-reused");
        assert_eq!(problem["differs"], json!(["/params/lang", "/params/new"]));
        assert!(
            !reply.text().contains("secret-de"),
            "a stored value was shown"
        );
        client.ended(&id).await;
    }
    let by_type = json!({"type": "other", "params": {}});
    let problem = client
        .submit(&by_type, "k")
        .await
        .problem(422, "idempotency-key-reused");
    let differs = problem["differs"].as_array().unwrap();
    assert!(differs.contains(&json!("/type")), "{problem}");
    let total = client.stats().await["total_tasks"].clone();
    assert_eq!(total, 1, "a refused submission left a task behind");
}

#[tokio::test]
async fn the_same_content_joins_without_a_key_or_with_another() {
    let world = World::new();
    let service = gated(&world).start().await;
    let client = service.client();
    let task = json!({"type": "gated", "params": {"b": 2, "a": 1}});
    let id = client.submit_keyless(&task).await.expect(202).id();
    let joined = client.submit(&task, "late").await.expect(202);
    assert_eq!(joined.id(), id);
    assert_eq!(joined.json()["matched_by"], "fingerprint");
    assert_eq!(joined.header("idempotent-replayed"), None);
    assert_eq!(joined.header("idempotency-key"), Some("late"));
    world.open_gate();
    client.ended(&id).await;
    let cached = client.submit_keyless(&task).await.expect(200);
    assert_eq!(cached.id(), id);
    assert_eq!(cached.json()["matched_by"], "fingerprint");
    assert_eq!(cached.json()["result"], json!({"ran": true}));

    // The key that joined is bound: it replays, and it can name nothing else.
    let replay = client.submit(&task, "late").await.expect(200);
    assert_eq!(replay.json()["matched_by"], "idempotency_key");
    let other = json!({"type": "gated", "params": {"a": 1}});
    client
        .submit(&other, "late")
        .await
        .problem(422, "idempotency-key-reused");
    assert_eq!(world.runs().len(), 1);
}

#[tokio::test]
async fn a_duplicate_joins_with_the_higher_priority_and_the_earlier_start() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let task = |extra: serde_json::Value| {
        let mut task = json!({"type": "echo", "params": {"p": 1}});
        task.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        task
    };
    let late = task(json!({"delay_seconds": 3600, "priority": 7}));
    let id = client.submit_keyless(&late).await.expect(202).id();
    assert_eq!(client.task(&id).await["state"], "scheduled");
    let soon = task(json!({"priority": 2, "tags": {"not": "applied"}}));
    let joined = client.submit_keyless(&soon).await.expect(202).json();
    assert_eq!(joined["id"], id.as_str());
    assert_eq!(joined["priority"], 2);
    assert_eq!(joined["ignored"], json!(["/tags"]));
    client.in_state(&id, "queued").await;
}

#[tokio::test]
async fn a_failed_task_answers_its_key_but_not_its_content_until_the_limit() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"fail_permanently": true}});
    let id = client.submit(&task, "k").await.expect(202).id();
    assert_eq!(client.ended(&id).await["state"], "failed");
    let replay = client.submit(&task, "k").await.expect(200).json();
    assert_eq!(replay["id"], id.as_str());
    assert_eq!(replay["state"], "failed");
    assert_eq!(replay["error"]["permanent"], true);

    // max_resubmissions is 3: three new tasks after the first, then the newest failed one.
    let mut ids = vec![id];
    for round in 1..=3 {
        let again = client
            .submit(&task, &format!("again-{round}"))
            .await
            .expect(202);
        assert_eq!(again.json()["deduplicated"], false, "round {round}");
        ids.push(again.id());
        client.ended(ids.last().unwrap()).await;
    }
    let over = client.submit(&task, "over").await.expect(200);
    assert_eq!(&over.id(), ids.last().unwrap());
    assert_eq!(over.json()["state"], "failed");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn after_a_cancelled_task_the_same_content_is_new() {
    let service = Setup::new().env("JUSTONCE_WORKERS", "0").start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"c": 1}});
    let id = client.submit(&task, "k").await.expect(202).id();
    client
        .post(&format!("/v1/tasks/{id}/cancel"))
        .send()
        .await
        .expect(200);
    let replay = client.submit(&task, "k").await.expect(200).json();
    assert_eq!(replay["state"], "cancelled");
    let anew = client.submit_keyless(&task).await.expect(202);
    assert_ne!(anew.id(), id);
    assert_eq!(anew.json()["deduplicated"], false);
}

#[tokio::test]
async fn mode_none_matches_nothing_but_its_key() {
    let service = Setup::new().start().await;
    let client = service.client();
    let free = json!({"type": "echo", "params": {"f": 1}, "dedup": {"mode": "none"}});
    let one = client.submit(&free, "one").await.expect(202).id();
    let two = client.submit(&free, "two").await.expect(202).id();
    assert_ne!(one, two);
    client.ended(&one).await;
    assert_eq!(client.submit(&free, "one").await.expect(200).id(), one);
    let plain = json!({"type": "echo", "params": {"f": 1}});
    let plain = client.submit_keyless(&plain).await.expect(202).id();
    assert!(
        plain != one && plain != two,
        "a task of mode none answered for another"
    );
    let changed = json!({"type": "echo", "params": {"f": 2}, "dedup": {"mode": "none"}});
    client
        .submit(&changed, "one")
        .await
        .problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn mode_reject_refuses_a_duplicate_and_names_the_task() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"r": 1}, "dedup": {"mode": "reject"}});
    let id = client.submit(&task, "k").await.expect(202).id();
    client.ended(&id).await;
    let refused = client.submit_keyless(&task).await;
    let problem = refused.problem(409, "duplicate-submission");
    assert!(problem.to_string().contains(&id), "{problem}");
    // A repeat with its own key is no duplicate of another: it is the same intent.
    assert_eq!(client.submit(&task, "k").await.expect(200).id(), id);
}

#[tokio::test]
async fn a_check_changes_nothing() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"q": 1}});
    let check = async |task: &serde_json::Value, key: &str| {
        let reply = client
            .post("/v1/tasks/check")
            .key(key)
            .json(task)
            .send()
            .await;
        reply.expect(200).json()
    };
    assert_eq!(check(&task, "k").await["verdict"], "new");
    assert_eq!(client.stats().await["total_tasks"], 0);
    let id = client.submit(&task, "k").await.id();
    client.ended(&id).await;
    let by_key = check(&task, "k").await;
    assert_eq!(by_key["verdict"], "duplicate");
    assert_eq!(by_key["matched_by"], "idempotency_key");
    assert_eq!(by_key["task"]["id"], id.as_str());
    let by_content = check(&task, "other").await;
    assert_eq!(by_content["matched_by"], "fingerprint");
    assert!(by_content["expires_at"].is_string(), "{by_content}");
    let reused = check(&json!({"type": "echo", "params": {"q": 2}}), "k").await;
    assert_eq!(reused["verdict"], "key_reused");
    assert_eq!(reused["differs"], json!(["/params/q"]));
    assert_eq!(
        client.task(&id).await["duplicates"],
        0,
        "a check was counted"
    );
    // The key "other" was only asked about: it is free.
    let anew = json!({"type": "echo", "params": {"q": 3}});
    client.submit(&anew, "other").await.expect(202);
}

#[tokio::test]
async fn when_the_window_is_over_the_content_is_new_and_the_key_still_answers() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"w": 1}, "dedup": {"window_seconds": 1}});
    let id = client.submit(&task, "k").await.expect(202).id();
    client.ended(&id).await;
    assert_eq!(client.submit_keyless(&task).await.expect(200).id(), id);
    let anew = crate::support::deadline::until("the end of the window", async || {
        let reply = client.submit_keyless(&task).await;
        (reply.id() != id).then_some(reply)
    })
    .await;
    assert_eq!(anew.json()["deduplicated"], false);
    assert_eq!(client.submit(&task, "k").await.expect(200).id(), id);
}

#[tokio::test]
async fn the_window_of_the_environment_is_the_default() {
    let service = Setup::new().env("DEDUPLICATION_TTL", "7200").start().await;
    let task = service.client().echo(json!({"w": 2})).await;
    let at = |name: &str| {
        let text = task[name].as_str().unwrap();
        justonce::domain::timestamp::Timestamp::parse_rfc3339(text).unwrap()
    };
    assert_eq!(
        at("dedup_expires_at").since(at("finished_at")).as_secs(),
        7200
    );
}

#[tokio::test]
async fn prefer_wait_attaches_to_the_task() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"sleep_ms": 200}});
    let reply = client
        .post("/v1/tasks")
        .wait(30)
        .json(&task)
        .send()
        .await
        .expect(200);
    assert_eq!(reply.header("preference-applied"), Some("wait=30"));
    assert_eq!(reply.json()["state"], "succeeded");
    assert_eq!(reply.json()["deduplicated"], false);

    let long = json!({"type": "echo", "params": {"sleep_ms": 60_000}});
    let reply = client
        .post("/v1/tasks")
        .wait(1)
        .json(&long)
        .send()
        .await
        .expect(202);
    assert!(!crate::support::client::is_ended(&reply.json()));
    // More than the cap is held to the cap, and other preferences are no error.
    let capped = client
        .post("/v1/tasks")
        .header("prefer", "respond-async, wait=9999")
        .json(&task);
    let capped = capped.send().await.expect(200);
    let applied = capped.header("preference-applied").unwrap();
    assert!(applied.ends_with("wait=50"), "{applied}");
}

#[tokio::test]
async fn keys_content_and_tasks_of_two_users_never_meet() {
    let service = Setup::new().start().await;
    let (ann, bob) = (service.client().user("ann"), service.client().user("bob"));
    let task = json!({"type": "echo", "params": {"u": 1}});
    let of_ann = ann.submit(&task, "k").await.expect(202).id();
    ann.ended(&of_ann).await;
    let reply = bob.submit(&task, "k").await.expect(202);
    assert_ne!(reply.id(), of_ann);
    assert_eq!(reply.json()["deduplicated"], false);
    bob.get(&format!("/v1/tasks/{of_ann}"))
        .send()
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn types_of_one_group_share_their_fingerprints() {
    let config = r#"
        [task_types.left]
        runner = { builtin = "echo" }
        dedup = { group = "both", ignore = ["/trace_id"] }
        [task_types.right]
        runner = { builtin = "echo" }
        dedup = { group = "both", ignore = ["/trace_id"] }
    "#;
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let left = json!({"type": "left", "params": {"x": 1, "trace_id": "one"}});
    let right = json!({"type": "right", "params": {"trace_id": "two", "x": 1}});
    let id = client.submit_keyless(&left).await.expect(202).id();
    client.ended(&id).await;
    assert_eq!(client.submit_keyless(&right).await.expect(200).id(), id);
}

fn gated(world: &World) -> Setup {
    let runner = world.gate("gate");
    Setup::new().config(&format!("[task_types.gated]\nrunner = {{ {runner} }}\n"))
}

#[tokio::test]
async fn an_acknowledged_submission_survives_a_restart_with_its_key_and_result() {
    let service: Service = Setup::new().start().await;
    let task = json!({"type": "echo", "params": {"kept": true}});
    let client = service.client();
    let id = client.submit(&task, "k").await.id();
    let before = client.ended(&id).await;
    let service = service.kill().await.start().await;
    let client = service.client();
    assert_eq!(client.task(&id).await, before);
    assert_eq!(client.submit(&task, "k").await.expect(200).id(), id);
    assert_eq!(client.submit_keyless(&task).await.expect(200).id(), id);
}

#[tokio::test]
async fn what_a_duplicate_asks_for_in_vain_is_named() {
    let service = Setup::new().start().await;
    let client = service.client();
    let first = client.submit(&json!({"type": "echo"}), "k").await.id();
    client.ended(&first).await;
    let wishes = json!({
        "type": "echo", "priority": 0, "delay_seconds": 60, "tags": {"a": "b"},
        "dedup": {"window_seconds": 5},
    });
    let expected = json!([
        "/delay_seconds",
        "/dedup/window_seconds",
        "/priority",
        "/tags"
    ]);
    // From the store, from memory, and by the key.
    for _ in 0..2 {
        let duplicate = client.submit_keyless(&wishes).await.expect(200);
        assert_eq!(duplicate.json()["ignored"], expected);
        let replay = client.submit(&wishes, "k").await.expect(200);
        assert_eq!(replay.json()["ignored"], expected);
    }
}
