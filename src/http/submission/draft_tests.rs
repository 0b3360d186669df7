use serde_json::json;

use super::*;
use crate::config::builtin;
use crate::config::defaults::Defaults;
use crate::domain::callback::Callback;
use crate::domain::retry::RetryPolicy;
use crate::domain::schema::ParamsSchema;
use crate::domain::task_type::{DedupMode, DedupPolicy, OnOlderVersion, Retention, RunnerSpec};

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn task_type(name: &str, files: FilesRule) -> TaskType {
    let schema = json!({"properties": {"n": {"type": "integer"}}, "additionalProperties": false});
    TaskType {
        name: name.into(),
        description: String::new(),
        runner: RunnerSpec::Builtin(name.into()),
        params_schema: Some(ParamsSchema::compile(schema).unwrap()),
        params_check: None,
        version: 1,
        require_key: name == "keyed",
        files,
        dedup: DedupPolicy {
            mode: DedupMode::Return,
            by: Vec::new(),
            debounce: None,
            ignore: Vec::new(),
            file_name: false,
            group: None,
            window: Duration::from_secs(3600),
            window_max: Duration::from_secs(86_400),
            max_resubmissions: 3,
            on_older_version: OnOlderVersion::Rerun,
        },
        retry: RetryPolicy {
            max_attempts: 4,
            first_delay: Duration::from_secs(60),
            factor: RetryPolicy::FACTOR,
            max_delay: RetryPolicy::MAX_DELAY,
            jitter: RetryPolicy::JITTER,
        },
        timeout: Duration::from_secs(3600),
        lease: Duration::from_secs(30),
        priority: Priority::DEFAULT,
        concurrency: None,
        concurrency_per_user: None,
        concurrency_key: None,
        rate: None,
        rate_per_user: None,
        ageing: Priority::AGEING,
        retention: Retention::default(),
    }
}

fn types() -> TaskTypes {
    [
        task_type("echo", FilesRule::Optional),
        task_type("bare", FilesRule::None),
        task_type("file", FilesRule::Required),
        task_type("keyed", FilesRule::Optional),
        builtin::task_type(Callback::TASK_TYPE, &Defaults::default())
            .unwrap()
            .unwrap(),
    ]
    .into_iter()
    .collect()
}

const REFERENCES: Carries = Carries::References { files_max: 2 };

fn read(value: &Value, carries: Carries) -> Result<Drafted, Problem> {
    Draft::from_json(value.to_string().as_bytes())?.read(&types(), None, carries, NOW)
}

/// The code, and the pointers of what is wrong.
fn refused(value: &Value) -> (Code, Vec<String>) {
    let problem = read(value, REFERENCES).expect_err("refused");
    let document = problem.document("", None, None);
    let errors = document["errors"].as_array().cloned().unwrap_or_default();
    let pointer = |error: &Value| error["pointer"].as_str().unwrap_or_default().to_owned();
    (problem.code(), errors.iter().map(pointer).collect())
}

#[test]
fn every_member_is_read() {
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let drafted = read(
        &json!({
            "type": "echo", "params": {"n": 1}, "priority": 2, "delay_seconds": 1.5,
            "dedup": {"mode": "reject", "window_seconds": 60}, "tags": {"env": "test"},
            "file": {"sha256": sha256, "size": 0},
        }),
        REFERENCES,
    )
    .unwrap();
    let submission = drafted.submission;
    assert_eq!(submission.params, json!({"n": 1}));
    assert_eq!(submission.priority, Priority::new(2));
    assert_eq!(submission.start, Start::After(Duration::from_millis(1500)));
    assert_eq!(submission.dedup.mode, Some(DedupMode::Reject));
    assert_eq!(submission.dedup.window, Some(Duration::from_secs(60)));
    assert_eq!(submission.tags["env"], "test");
    assert_eq!(drafted.references[0].size, Some(0));

    let least = read(&json!({"type": "echo"}), REFERENCES).unwrap();
    assert_eq!(least.submission.params, json!({}));
    assert_eq!(least.submission.start, Start::Now);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let (code, pointers) = refused(&json!({
        "type": "echo", "params": {"n": "x"}, "priority": 10, "delay_seconds": -1, "tags": {"": "", "a": 1},
        "dedup": {"mode": "debounce", "by": ["/n"], "window_seconds": 86_401}, "callback_url": "http://127.1/", "extra": 1,
        "run_at": "tomorrow", "file": {"sha256": "x", "name": "y"},
    }));
    assert_eq!(code, Code::ValidationFailed);
    let mut pointers = pointers;
    pointers.sort();
    assert_eq!(
        pointers,
        [
            "/callback_url",
            "/dedup/delay_seconds",
            "/dedup/window_seconds",
            "/delay_seconds",
            "/extra",
            "/file/name",
            "/file/sha256",
            "/params/n",
            "/priority",
            "/run_at",
            "/tags/",
            "/tags/a",
        ]
    );
}

#[test]
fn conflict_modes_are_read_and_their_mistakes_are_named() {
    let of = |dedup: Value| json!({"type": "echo", "params": {"n": 1}, "dedup": dedup});
    let read_one = |dedup: Value| read(&of(dedup), REFERENCES).unwrap().submission;
    let submission = read_one(json!({
        "mode": "debounce", "by": ["/n"], "delay_seconds": 1.5, "max_delay_seconds": 60,
    }));
    assert_eq!(submission.mode(), DedupMode::Debounce);
    assert_eq!(submission.dedup.by, Some(vec!["/n".to_owned()]));
    let debounce = submission.debounce().unwrap();
    assert_eq!(debounce.delay, Duration::from_millis(1500));
    assert_eq!(debounce.max_delay, Duration::from_secs(60));
    let short = read_one(json!({"mode": "debounce", "delay_seconds": 2}));
    assert_eq!(short.debounce().unwrap().max_delay, Duration::from_secs(20));
    for mode in ["replace", "throttle", "keep_last"] {
        let made = read_one(json!({"mode": mode, "by": ["/n", "/m~1o"]}));
        assert_eq!(made.mode().name(), mode);
    }
    for (dedup, pointer) in [
        (json!({"mode": "newest"}), "/dedup/mode"),
        (
            json!({"mode": "newest", "by": ["/n"], "delay_seconds": 5}),
            "/dedup/mode",
        ),
        (json!({"mode": "debounce"}), "/dedup/delay_seconds"),
        (
            json!({"mode": "debounce", "delay_seconds": -1}),
            "/dedup/delay_seconds",
        ),
        (
            json!({"mode": "debounce", "delay_seconds": 5, "max_delay_seconds": 4}),
            "/dedup/max_delay_seconds",
        ),
        (
            json!({"mode": "replace", "delay_seconds": 5}),
            "/dedup/delay_seconds",
        ),
        (json!({"by": ["/n"]}), "/dedup/by"),
        (json!({"mode": "none", "by": ["/n"]}), "/dedup/by"),
        (json!({"mode": "reject", "by": ["/n"]}), "/dedup/by"),
        (json!({"mode": "replace", "by": []}), "/dedup/by"),
        (json!({"mode": "replace", "by": "/n"}), "/dedup/by"),
        (json!({"mode": "replace", "by": ["n"]}), "/dedup/by"),
        (
            json!({"mode": "replace", "by": vec!["/n"; 17]}),
            "/dedup/by",
        ),
    ] {
        let (code, pointers) = refused(&of(dedup.clone()));
        assert_eq!(code, Code::ValidationFailed, "{dedup}");
        assert_eq!(pointers, [pointer], "{dedup}");
    }
    let bare = json!({"type": "echo", "dedup": {"mode": "replace", "by": ["/n"]}});
    assert_eq!(refused(&bare).1, ["/dedup/by"]);
    let debounced = json!({"mode": "debounce", "delay_seconds": 5});
    for (member, value) in [
        ("run_at", json!("2001-01-01T00:00:00Z")),
        ("delay_seconds", json!(7)),
    ] {
        let mut both = of(debounced.clone());
        both[member] = value;
        assert_eq!(refused(&both).1, [format!("/{member}")]);
    }
}

#[test]
fn refusals_have_their_codes() {
    let invalid = |pointer: &str| (Code::ValidationFailed, vec![pointer.to_owned()]);
    assert_eq!(refused(&json!({})), invalid("/type"));
    assert_eq!(refused(&json!({"type": null})), invalid("/type"));
    assert_eq!(refused(&json!([])), invalid(""));
    assert_eq!(
        refused(&json!({"type": "echo", "params": []})),
        invalid("/params")
    );
    assert_eq!(refused(&json!({"type": "file"})), invalid("/file"));
    let sha256 = "0".repeat(64);
    let file = json!({"sha256": sha256});
    assert_eq!(
        refused(&json!({"type": "bare", "file": file})),
        invalid("/file")
    );
    assert_eq!(
        refused(&json!({"type": "echo", "file": {}})),
        invalid("/file/sha256")
    );
    assert_eq!(
        refused(&json!({"type": "echo", "file": file, "files": []})),
        invalid("/files")
    );
    assert_eq!(
        refused(&json!({"type": "echo", "files": [file, file, file]})),
        invalid("/files")
    );
    assert_eq!(refused(&json!({"type": "nope"})).0, Code::UnknownTaskType);
    assert_eq!(
        refused(&json!({"type": "keyed"})).0,
        Code::IdempotencyKeyMissing
    );
}

#[test]
fn start_times_reach_a_year_ahead() {
    let start = |members: Value| {
        let mut submission = json!({"type": "echo"});
        submission
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        read(&submission, REFERENCES).map(|drafted| drafted.submission.start)
    };
    let past = Timestamp::parse_rfc3339("2001-01-01T00:00:00Z").unwrap();
    assert_eq!(
        start(json!({"run_at": "2001-01-01T00:00:00Z"})).unwrap(),
        Start::At(past)
    );
    assert_eq!(start(json!({"delay_seconds": 0})).unwrap(), Start::Now);
    assert!(start(json!({"run_at": "2999-01-01T00:00:00Z"})).is_err());
    assert!(start(json!({"delay_seconds": 366 * 86_400 + 1})).is_err());
    assert!(start(json!({"run_at": "2001-01-01T00:00:00Z", "delay_seconds": 1})).is_err());
}

#[test]
fn text_fields_make_the_same_submission() {
    let mut draft = Draft::default();
    for (name, text) in [
        ("type", "echo"),
        ("params", r#"{"n": 1}"#),
        ("priority", "3"),
        ("delay_seconds", "2"),
        ("tags", r#"{"a": "b"}"#),
    ] {
        draft.set_text(name, text.into()).unwrap();
    }
    let drafted = draft
        .clone()
        .read(&types(), None, Carries::Bytes, NOW)
        .unwrap();
    assert_eq!(drafted.submission.params, json!({"n": 1}));
    assert_eq!(drafted.submission.priority, Priority::new(3));
    assert_eq!(
        drafted.submission.start,
        Start::After(Duration::from_secs(2))
    );

    assert!(draft.set_text("type", "echo".into()).is_err());
    let mut draft = Draft::default();
    let problem = draft.set_text("params", "{".into()).expect_err("no JSON");
    assert_eq!(problem.code(), Code::InvalidJson);
    draft.set_text("type", "echo".into()).unwrap();
    draft.set_text("priority", "high".into()).unwrap();
    assert!(draft.read(&types(), None, Carries::Bytes, NOW).is_err());
}

#[test]
fn a_body_with_bytes_takes_no_references() {
    let file = json!({"sha256": "0".repeat(64)});
    assert!(read(&json!({"type": "echo", "file": file}), Carries::Bytes).is_err());
    assert!(read(&json!({"type": "bare"}), Carries::Bytes).is_err());
    assert!(read(&json!({"type": "file"}), Carries::Bytes).is_ok());
}

#[test]
fn depth_counts_from_the_params() {
    let nested = |levels: usize| {
        let (open, close) = (r#"{"n":"#.repeat(levels), "}".repeat(levels));
        format!(r#"{{"type":"echo","params":{open}1{close}}}"#)
    };
    assert!(Draft::from_json(nested(64).as_bytes()).is_ok());
    let problem = Draft::from_json(nested(65).as_bytes()).expect_err("too deep");
    assert_eq!(problem.code(), Code::InvalidJson);
}

#[test]
fn a_callback_goes_to_the_internet_and_is_no_part_of_the_work() {
    let of = |url: Value| json!({"type": "echo", "callback_url": url});
    let read_one = |url: &str| read(&of(url.into()), REFERENCES).unwrap().submission;
    let callback = read_one("HTTPS://Hooks.Example:443/a b?c=%64#e")
        .callback
        .unwrap();
    assert_eq!(callback.url, "https://hooks.example/a%20b?c=%64#e");
    assert_eq!(callback.terms.max_attempts, 4);
    let user = crate::domain::principal::UserId::anonymous();
    let fingerprint =
        |made: &Submission| made.fingerprint(&user, &made.task_type.fingerprint_rule());
    let without = read(&json!({"type": "echo"}), REFERENCES)
        .unwrap()
        .submission;
    assert_eq!(
        fingerprint(&read_one("https://a.example")),
        fingerprint(&without)
    );
    for url in [
        "http://127.1/",
        "ftp://a.example/",
        "http://u@a.example/",
        "http://localhost/",
        "hook",
        "",
    ] {
        let (code, pointers) = refused(&of(url.into()));
        assert_eq!(code, Code::CallbackUrlRejected, "{url}");
        assert_eq!(pointers, ["/callback_url"]);
    }
    // What is too long once it is written out is too long.
    let (code, _) = refused(&of(format!("https://a.example/{}", "é".repeat(400)).into()));
    assert_eq!(code, Code::CallbackUrlRejected);
    for other in [json!(7), json!(null), json!(["https://a.example"])] {
        assert_eq!(refused(&of(other)).0, Code::ValidationFailed);
    }
}

#[test]
fn the_services_own_type_is_no_type_for_clients() {
    let own = json!({"type": Callback::TASK_TYPE, "params": {"url": "https://a.example"}});
    let problem = read(&own, REFERENCES).expect_err("refused");
    assert_eq!(problem.code(), Code::UnknownTaskType);
    let known = problem.document("", None, None)["known"].clone();
    let known = known.as_array().unwrap();
    assert!(!known.contains(&json!(Callback::TASK_TYPE)) && known.contains(&json!("echo")));
}
