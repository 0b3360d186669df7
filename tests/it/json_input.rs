//! JSON as clients send it, and as abusers do.

use serde_json::json;

use crate::support::Setup;

/// Params of so many levels: an object, and arrays below it.
fn nested(levels: usize) -> String {
    format!(
        r#"{{"type":"echo","params":{{"a":{}{}}}}}"#,
        "[".repeat(levels - 1),
        "]".repeat(levels - 1)
    )
}

#[tokio::test]
async fn json_that_two_readers_could_read_differently_is_refused() {
    let service = Setup::new().start().await;
    let client = service.client();
    let params = |text: &str| format!(r#"{{"type":"echo","params":{text}}}"#);
    let bad = [
        String::new(),
        "{".to_owned(),
        "nul".to_owned(),
        r#"{"type":"echo"} {}"#.to_owned(),
        r#"{"type":"echo",}"#.to_owned(),
        "\u{feff}{\"type\":\"echo\"}".to_owned(),
        r#"{"type":"echo","type":"echo"}"#.to_owned(),
        params(r#"{"a":1,"a":2}"#),
        params(r#"{"x":{"a":1,"\u0061":2}}"#),
        params(r#""\ud800""#),
        params("1e400"),
        params("9007199254740993"),
        params("-9007199254740993"),
        params("01"),
        params("NaN"),
        nested(65),
        nested(10_000),
    ];
    for text in bad {
        let reply = client
            .post("/v1/tasks")
            .json_text(text.clone())
            .send()
            .await;
        let problem = reply.problem(400, "invalid-json");
        assert_eq!(problem["retryable"], false, "{text}");
    }
    let not_utf8 = client
        .post("/v1/tasks")
        .json_text(b"{\"type\":\"\xff\"}".to_vec())
        .send()
        .await;
    not_utf8.problem(400, "invalid-json");
    let with_nul = client
        .post("/v1/tasks")
        .json_text(&b"{\"type\":\"echo\"}\0"[..])
        .send()
        .await;
    with_nul.problem(400, "invalid-json");
    assert_eq!(client.stats().await["total_tasks"], 0);
    client
        .post("/v1/tasks")
        .json_text(nested(64))
        .send()
        .await
        .expect(202);
}

#[tokio::test]
async fn values_come_back_as_they_were_sent() {
    let service = Setup::new().start().await;
    let params = json!({
        "integer": 9_007_199_254_740_992_u64,
        "small": 5e-324,
        "text": "a\u{0}\u{1f600}\n\u{2028}e\u{301}",
        "nothing": null,
        "deep": [[[[]]], {"": ""}],
    });
    assert_eq!(
        service.client().echo(params.clone()).await["result"],
        params
    );
}

#[tokio::test]
async fn what_is_not_a_submission_is_refused_with_pointers() {
    let service = Setup::new().start().await;
    let client = service.client();
    let with = |member: &str, value: serde_json::Value| {
        let mut task = json!({"type": "echo", "params": {}});
        task[member] = value;
        task
    };
    let many_tags: serde_json::Map<_, _> = (0..17).map(|n| (format!("t{n}"), json!("x"))).collect();
    let cases = [
        (json!([]), None),
        (json!("echo"), None),
        (json!({}), Some("/type")),
        (json!({"type": 5}), Some("/type")),
        (with("unknown", json!(1)), Some("/unknown")),
        (with("Params", json!({})), Some("/Params")),
        (with("priority", json!(10)), Some("/priority")),
        (with("priority", json!(-1)), Some("/priority")),
        (with("priority", json!("high")), Some("/priority")),
        (with("run_at", json!("tomorrow")), Some("/run_at")),
        (with("delay_seconds", json!(-1)), Some("/delay_seconds")),
        (with("delay_seconds", json!(1e12)), Some("/delay_seconds")),
        (with("tags", json!({"a": 1})), Some("/tags/a")),
        (with("tags", json!(many_tags)), Some("/tags")),
        (
            with("tags", json!({"long": "x".repeat(129)})),
            Some("/tags/long"),
        ),
        (
            with("dedup", json!({"mode": "sometimes"})),
            Some("/dedup/mode"),
        ),
        (
            with("dedup", json!({"surprise": 1})),
            Some("/dedup/surprise"),
        ),
        (
            with("dedup", json!({"window_seconds": -5})),
            Some("/dedup/window_seconds"),
        ),
    ];
    for (task, pointer) in cases {
        let problem = client
            .submit(&task, "k")
            .await
            .problem(422, "validation-failed");
        let errors = problem["errors"].as_array().unwrap();
        assert!(
            !errors.is_empty() && errors.iter().all(|e| e["detail"].is_string()),
            "{problem}"
        );
        if let Some(pointer) = pointer {
            assert!(
                errors.iter().any(|e| e["pointer"] == pointer),
                "{pointer}: {problem}"
            );
        }
    }
    let both = json!({"type": "echo", "run_at": "2099-01-01T00:00:00Z", "delay_seconds": 1});
    client
        .submit(&both, "k")
        .await
        .problem(422, "validation-failed");
    // Nothing was recorded, not even the key.
    client
        .submit(&json!({"type": "echo"}), "k")
        .await
        .expect(202);
}

#[tokio::test]
async fn an_unknown_type_is_answered_with_the_known_ones() {
    let service = Setup::new().start().await;
    let reply = service
        .client()
        .submit_keyless(&json!({"type": "no_such"}))
        .await;
    let problem = reply.problem(422, "unknown-task-type");
    let known = problem["known"].as_array().unwrap();
    for name in ["echo", "process_file", "process_document"] {
        assert!(known.contains(&json!(name)), "{name}: {problem}");
    }
}

#[tokio::test]
async fn params_are_checked_against_the_schema_of_their_type() {
    let setup = Setup::new().config(
        "[task_types.thumbnail]\nrunner = { builtin = \"echo\" }\nparams_schema = \"thumbnail.json\"\n",
    );
    let schema = json!({
        "type": "object",
        "properties": {"width": {"type": "integer", "minimum": 1}},
        "required": ["width"],
        "additionalProperties": false,
    });
    std::fs::write(setup.folder().join("thumbnail.json"), schema.to_string()).unwrap();
    let service = setup.start().await;
    let client = service.client();
    for (params, pointer) in [
        (json!({"width": "wide"}), "/params/width"),
        (json!({"width": 0}), "/params/width"),
        (json!({}), "/params"),
        (json!({"width": 1, "height": 1}), "/params"),
    ] {
        let task = json!({"type": "thumbnail", "params": params});
        let problem = client
            .submit_keyless(&task)
            .await
            .problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(
            !problem.to_string().contains("wide"),
            "a value was shown: {problem}"
        );
    }
    client
        .submit_keyless(&json!({"type": "thumbnail", "params": {"width": 10}}))
        .await
        .expect(202);
}

#[tokio::test]
async fn absent_params_are_an_empty_object() {
    let service = Setup::new().start().await;
    let client = service.client();
    let id = client
        .submit_keyless(&json!({"type": "echo"}))
        .await
        .expect(202)
        .id();
    let empty = json!({"type": "echo", "params": {}});
    assert_eq!(client.submit_keyless(&empty).await.id(), id);
    let null = client
        .submit_keyless(&json!({"type": "echo", "params": null}))
        .await;
    assert!(
        null.status == 422 || null.id() != id,
        "null was folded into an empty object"
    );
}

#[tokio::test]
async fn media_types_and_sizes_are_held_to() {
    let service = Setup::new().start().await;
    let client = service.client();
    let post = |media_type: &str| {
        let request = client.post("/v1/tasks").header("content-type", media_type);
        request.body(r#"{"type":"echo"}"#).send()
    };
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        post(media_type)
            .await
            .problem(415, "unsupported-media-type");
    }
    let none = client
        .post("/v1/tasks")
        .body(r#"{"type":"echo"}"#)
        .send()
        .await;
    none.problem(415, "unsupported-media-type");
    post("application/json; charset=utf-8").await.expect(202);

    let sized = |bytes: usize| {
        format!(
            r#"{{"type":"echo","params":{{"a":"{}"}}}}"#,
            "x".repeat(bytes - 33)
        )
    };
    assert_eq!(sized(1000).len(), 1000);
    let fits = client
        .post("/v1/tasks")
        .json_text(sized(1024 * 1024))
        .send()
        .await;
    fits.expect(202);
    let over = client
        .post("/v1/tasks")
        .json_text(sized(1024 * 1024 + 1))
        .send()
        .await;
    over.problem(413, "payload-too-large");
    let far_over = client
        .post("/v1/tasks")
        .json_text(sized(3 * 1024 * 1024))
        .send()
        .await;
    far_over.problem(413, "payload-too-large");
}
