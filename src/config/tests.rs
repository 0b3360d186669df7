use super::*;
use crate::domain::principal::UserId;
use crate::domain::quota::{Quota, Quotas};
use crate::domain::task_type::{DedupMode, FilesRule, OnOlderVersion, RunnerSpec};
use crate::http::api::AuthMode;
use storage::StoreChoice;

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let owned = |(name, text): &(&str, &str)| (OsString::from(name), OsString::from(text));
    pairs.iter().map(owned).collect()
}

fn flag(key: &'static str, text: &str) -> Layer {
    let given = Given {
        text: text.into(),
        origin: format!("--{key}"),
    };
    Layer::from([(key, given)])
}

/// Settings from a file, variables and flags.
fn load(file: &str, pairs: &[(&str, &str)], command_line: Layer) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("justonce.toml");
    std::fs::write(&path, file).unwrap();
    Settings::load(Sources {
        command_line,
        environment: variables(pairs),
        config: Some(path),
    })
}

fn refusal(file: &str, pairs: &[(&str, &str)]) -> String {
    load(file, pairs, Layer::new()).unwrap_err().to_string()
}

#[test]
fn later_sources_win() {
    let file = "workers = 1\nlisten = \"127.0.0.1:1\"\n";
    let workers = |pairs: &[_], flags| load(file, pairs, flags).unwrap().workers;
    assert_eq!(workers(&[], Layer::new()), 1);
    assert_eq!(workers(&[("JUSTONCE_WORKERS", "2")], Layer::new()), 2);
    assert_eq!(
        workers(&[("JUSTONCE_WORKERS", "2")], flag("workers", "3")),
        3
    );
    let settings = load(file, &[], Layer::new()).unwrap();
    assert_eq!(settings.listen.port(), 1);
}

#[test]
fn without_any_source_the_defaults_hold() {
    let settings = load("", &[], Layer::new()).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.edge.auth, AuthMode::Off);
    assert_eq!(settings.drain.delay, Duration::from_secs(5));
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.storage.store, StoreChoice::Embedded);
    let data = settings.storage.data.unwrap();
    assert_eq!(settings.storage.blobs, Some(data.join("blobs")));
    let echo = settings.types.get("echo").unwrap();
    assert_eq!(
        (echo.retry.max_attempts, echo.dedup.max_resubmissions),
        (4, 3)
    );
    assert_eq!(echo.dedup.window_max, Defaults::WINDOW_MAX);
    let file = settings.types.get("process_file").unwrap();
    assert_eq!(file.files, FilesRule::Required);
    assert_eq!(file.runner, RunnerSpec::Sandboxed("process_file".into()));
}

#[test]
fn store_wins_over_mock_mode_and_that_over_redis() {
    let store = |pairs: &[_]| load("", pairs, Layer::new()).map(|s| s.storage.store);
    assert_eq!(store(&[("MOCK_MODE", "true")]), Ok(StoreChoice::Memory));
    assert_eq!(store(&[("MOCK_MODE", "false")]), Ok(StoreChoice::Embedded));
    let redis = ("REDIS_URL", "redis://localhost");
    assert_eq!(
        store(&[("MOCK_MODE", "true"), redis]),
        Ok(StoreChoice::Memory)
    );
    let embedded = ("JUSTONCE_STORE", "embedded");
    assert_eq!(
        store(&[embedded, ("MOCK_MODE", "true"), redis]),
        Ok(StoreChoice::Embedded)
    );
    let chosen = store(&[redis, ("JUSTONCE_REDIS_PREFIX", "mine")]).unwrap();
    let StoreChoice::Redis(chosen) = chosen else {
        panic!("{chosen:?}");
    };
    assert_eq!(
        (chosen.url.as_str(), chosen.prefix.as_str()),
        (redis.1, "mine")
    );
    assert_eq!(chosen.ca, None);
    assert!(!format!("{chosen:?}").contains(redis.1));
    let braces = ("JUSTONCE_REDIS_PREFIX", "{a}");
    assert!(refusal("", &[redis, braces]).contains("JUSTONCE_REDIS_PREFIX"));
    let file = "store = \"embedded\"";
    let over_file = load(file, &[("MOCK_MODE", "1")], Layer::new()).unwrap();
    assert_eq!(over_file.storage.store, StoreChoice::Memory);
    assert_eq!(
        (over_file.storage.data, over_file.storage.blobs),
        (None, None)
    );
}

#[test]
fn authentication_is_off_only_where_nobody_else_listens() {
    let auth = |pairs: &[_]| load("", pairs, Layer::new()).map(|s| s.edge.auth);
    let open = ("JUSTONCE_LISTEN", "0.0.0.0:8080");
    assert_eq!(auth(&[open]), Ok(AuthMode::Keys));
    assert_eq!(auth(&[("JUSTONCE_AUTH", "keys")]), Ok(AuthMode::Keys));
    assert!(refusal("", &[open, ("JUSTONCE_AUTH", "off")]).contains("JUSTONCE_INSECURE=true"));
    assert_eq!(
        auth(&[
            open,
            ("JUSTONCE_AUTH", "off"),
            ("JUSTONCE_INSECURE", "true")
        ]),
        Ok(AuthMode::Off)
    );
    assert!(refusal("", &[("JUSTONCE_AUTH", "jwt")]).contains("later release"));
}

#[test]
fn a_types_own_table_wins_over_variables() {
    let file = r#"
        [retention]
        key_seconds = 60

        [task_types.thumbnail]
        runner = { command = ["python3", "thumbnail.py"] }
        params_schema = { type = "object", required = ["size"] }
        version = 2
        require_key = true
        dedup = { mode = "reject", ignore = ["/trace_id"], window_seconds = 7200, on_older_version = "reuse" }
        retry = { max_attempts = 2, first_delay_seconds = 0.5, factor = 3.0, max_delay_seconds = 60, jitter = 0.0 }
        timeout_seconds = 10
        lease_seconds = 5
        priority = 0
        concurrency = 8

        [task_types.echo]
        timeout_seconds = 20
    "#;
    let pairs = [("MAX_RETRY_COUNT", "7"), ("DEDUPLICATION_TTL", "90000")];
    let settings = load(file, &pairs, Layer::new()).unwrap();
    let made = settings.types.get("thumbnail").unwrap();
    assert_eq!(made.dedup.mode, DedupMode::Reject);
    assert_eq!(made.dedup.window, Duration::from_secs(7200));
    assert_eq!(made.dedup.max_resubmissions, 7);
    assert_eq!(made.dedup.on_older_version, OnOlderVersion::Reuse);
    assert_eq!(made.retry.max_attempts, 2);
    assert_eq!(made.retry.first_delay, Duration::from_millis(500));
    assert_eq!(
        (made.version, made.require_key, made.priority.value()),
        (2, true, 0)
    );
    assert_eq!(made.concurrency, Some(8));
    assert_eq!(made.retention.key, Duration::from_secs(60));
    assert!(made.params_schema.is_some());
    let echo = settings.types.get("echo").unwrap();
    assert_eq!(echo.timeout, Duration::from_secs(20));
    assert_eq!(echo.retry.max_attempts, 8);
    assert_eq!(echo.runner, RunnerSpec::Builtin("echo".into()));
    // A result is kept as long as it may have to answer.
    assert_eq!(echo.retention.result, Duration::from_secs(90_000));
}

#[test]
fn a_schema_is_read_from_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("justonce.toml");
    let table = "[task_types.t]\nrunner = { builtin = \"echo\" }\nparams_schema = \"t.json\"\n";
    std::fs::write(&path, table).unwrap();
    let load = || {
        Settings::load(Sources {
            config: Some(path.clone()),
            ..Sources::default()
        })
    };
    assert!(
        load()
            .unwrap_err()
            .to_string()
            .contains("t.json: No such file")
    );
    std::fs::write(folder.path().join("t.json"), r#"{"type": "object"}"#).unwrap();
    assert!(load().unwrap().types.get("t").is_some());
}

#[test]
fn what_cannot_hold_refuses_to_start() {
    let table =
        |members: &str| format!("[task_types.t]\nrunner = {{ command = [\"x\"] }}\n{members}");
    for (file, expected) in [
        ("[task_types.t]\npriority = 1".into(), "it needs a runner"),
        (
            "[task_types.t]\nrunner = { http = \"http://10.0.0.1/\" }".into(),
            "allow it with [egress]",
        ),
        (
            "[task_types.t]\nrunner = { http = \"ftp://x\" }".into(),
            "runner.http must begin with http://",
        ),
        (
            "[egress]\nallow = [\"http://x\"]".into(),
            "[egress] allow: \"http://x\" is no address",
        ),
        ("[egress]\nallows = []".into(), "did you mean `allow`?"),
        (
            "[smtp]\nurl = \"smtp://mail.example\"".into(),
            "[smtp] url: JUSTONCE_SMTP_FROM must say",
        ),
        (
            "smtp_from = \"a@b.example\"".into(),
            "there is no JUSTONCE_SMTP_URL",
        ),
        (
            "[smtp]\nurl = \"http://mail.example\"\nfrom = \"a@b.example\"".into(),
            "[smtp] url: is no smtp://",
        ),
        (
            "[smtp]\nurl = \"smtp://mail.example\"\nfrom = \"nobody\"".into(),
            "is not an e-mail address",
        ),
        (
            "webhook_secret = \"whsec_x\"".into(),
            "a secret is whsec_ and 24 to 64 bytes",
        ),
        (
            "[task_types.t]\nrunner = { builtin = \"ecko\" }".into(),
            "did you mean `echo`?",
        ),
        (
            "[task_types.t]\nrunner = { builtin = \"echo\", command = [\"x\"] }".into(),
            "exactly one",
        ),
        (
            "[task_types.t]\nrunner = { external = false }".into(),
            "runner.external is true",
        ),
        (
            "[task_types.t]\nrunner = { external = true }\nconcurrency = 2".into(),
            "runs none here",
        ),
        (
            "[task_types.\"a b\"]\nrunner = { builtin = \"echo\" }".into(),
            "the name is 1 to 64",
        ),
        (
            table("concurrency_key = \"url\""),
            "concurrency_key: \"url\" is no JSON pointer",
        ),
        (
            table("concurrency_per_user = 0"),
            "concurrency_per_user must be above 0",
        ),
        (
            table("rate = { attempts = 0, seconds = 1 }"),
            "attempts of a rate are 1 to 10000",
        ),
        (
            table("rate_per_user = { attempts = 1, seconds = 90000 }"),
            "seconds of a rate are 0.01 to 86400",
        ),
        (table("rate = 5"), "line 3"),
        (
            "priority_ageing_seconds = 0".into(),
            "a number of seconds, 0.001 to 86400",
        ),
        (table("concurrency = 0"), "concurrency must be above 0"),
        (table("priority = 10"), "priority is 0"),
        (
            table("timeout_seconds = 5\nlease_seconds = 6"),
            "lease_seconds (6) is above timeout_seconds (5)",
        ),
        (
            table("dedup = { mode = \"debounce\" }"),
            "needs dedup.delay_seconds",
        ),
        (
            table("dedup = { mode = \"debounce\", delay_seconds = 5, max_delay_seconds = 4 }"),
            "above dedup.max_delay_seconds",
        ),
        (
            table("dedup = { mode = \"debounce\", delay_seconds = 99999999 }"),
            "dedup.delay_seconds is at most a year",
        ),
        (
            table("dedup = { mode = \"replace\", delay_seconds = 5 }"),
            "dedup.delay_seconds says nothing with mode \"replace\"",
        ),
        (
            table("dedup = { mode = \"retrun\" }"),
            "did you mean `return`?",
        ),
        (
            table("dedup = { by = [\"/a\"] }"),
            "dedup.by says nothing with mode \"return\"",
        ),
        (
            table("dedup = { mode = \"replace\", by = [] }"),
            "dedup.by has 1 to 16",
        ),
        (
            table("dedup = { mode = \"replace\", by = [\"a\"] }"),
            "dedup.by: \"a\" is no JSON pointer",
        ),
        (
            table("dedup = { on_older_version = \"reruns\" }"),
            "did you mean `rerun`?",
        ),
        (
            table("dedup = { ignore = [\"trace_id\"] }"),
            "is no JSON pointer",
        ),
        (
            table("dedup = { window_seconds = 10, window_max_seconds = 5 }"),
            "above dedup.window_max_seconds",
        ),
        (
            table("retry = { first_delay_seconds = 10, max_delay_seconds = 5 }"),
            "above retry.max_delay_seconds",
        ),
        (
            table("retry = { max_attempts = 0 }"),
            "retry.max_attempts is 1",
        ),
        (table("retry = { jitter = 2.0 }"), "retry.jitter"),
        (
            table("params_schema = { type = \"nonsense\" }"),
            "params_schema:",
        ),
        (
            table("retention = { result_seconds = 5 }"),
            "result_seconds (5) is below",
        ),
        (
            "[limits]\nresult_bytes_max = 5\nresult_inline_bytes_max = 6".into(),
            "result_inline_bytes_max is above",
        ),
        ("[limits]\nheader_bytes_max = 100".into(), "at least 8192"),
        (
            "workers = \"many\"".into(),
            "line 1, column 11: \"many\" is not a number of workers",
        ),
        (
            "durability = \"fsync\"\nstore = \"memory\"".into(),
            "does not survive that much",
        ),
        (
            "blobs = \"s3://bucket\"".into(),
            "S3 comes with a later release",
        ),
        (
            "cors_origins = [\"https://a.example/\"]".into(),
            "is no origin",
        ),
        ("base_path = \"/a//b\"".into(), "is no path"),
        ("trusted_proxies = \"10.0.0.0/33\"".into(), "is no network"),
    ] {
        let refused = refusal(&file, &[]);
        assert!(refused.contains(expected), "{file}\n{refused}");
    }
}

#[test]
fn a_mistake_is_shown_with_its_line() {
    let table = "[task_types.t]\nrunner = { command = [\"x\"] }\n";
    for (members, place) in [
        ("priority = 10", "line 3, column 1"),
        ("\nconcurrency = 0", "line 4, column 1"),
        ("dedup = { mode = \"retrun\" }", "line 3, column 11"),
        ("dedup = { ignore = [\"a\"] }", "line 3, column 11"),
        (
            "[task_types.t.retry]\nmax_attempts = 2\njitter = 2.0",
            "line 5, column 1",
        ),
        ("timeout_seconds = 5\nlease_seconds = 6", "line 4, column 1"),
        (
            "params_schema = { type = \"nonsense\" }",
            "line 3, column 1",
        ),
        ("retention = { result_seconds = 5 }", "line 3, column 15"),
        ("[limits]\nconnections_max = 0", "line 4, column 1"),
        ("[task_types.u]\nversion = 2", "line 3, column 13"),
        (
            "[task_types.u]\nrunner = { builtin = \"ecko\" }",
            "line 4, column 1",
        ),
    ] {
        let refused = refusal(&format!("{table}{members}"), &[]);
        assert!(
            refused.contains(&format!("justonce.toml, {place}: ")),
            "{members}\n{refused}"
        );
    }
    let refused = refusal(&format!("{table}priority = 10"), &[]);
    let said = "line 3, column 1: task type `t`: priority is 0 (first) to 9 (last)";
    assert!(refused.ends_with(said), "{refused}");
}

#[test]
fn the_edge_is_brought_into_one_form() {
    let file = r#"
        base_path = "/jobs/"
        public_url = "https://jobs.example/x"
        trusted_proxies = ["10.0.0.0/8", "::1"]
        cors_origins = ["https://app.example", "http://localhost:3000"]
    "#;
    let edge = load(file, &[], Layer::new()).unwrap().edge;
    assert_eq!(edge.base_path, "/jobs");
    assert_eq!(edge.trusted_proxies.len(), 2);
    assert_eq!(
        edge.cors_origins,
        ["https://app.example", "http://localhost:3000"]
    );
    let root = load("base_path = \"/\"", &[], Layer::new()).unwrap().edge;
    assert_eq!(root.base_path, "");
}

#[test]
fn a_bad_bootstrap_key_is_not_shown() {
    let refused = refusal("", &[("JUSTONCE_BOOTSTRAP_KEY", "hunter")]);
    assert!(
        refused.starts_with("JUSTONCE_BOOTSTRAP_KEY: a key has 8"),
        "{refused}"
    );
    assert!(!refused.contains("hunter"));
}

#[test]
fn quotas_come_with_authentication_and_from_every_source() {
    let quotas = |file: &str, pairs: &[_], flags| load(file, pairs, flags).unwrap().limits.quotas;
    let of = |requests_per_minute, unfinished_tasks| Quota {
        requests_per_minute,
        unfinished_tasks,
    };
    let keys = ("JUSTONCE_AUTH", "keys");
    assert_eq!(quotas("", &[], Layer::new()), Quotas::default());
    let usual = |file, pairs: &[_], flags| quotas(file, pairs, flags).usual;
    assert_eq!(usual("", &[keys], Layer::new()), of(Some(200), Some(1000)));
    let file = "[limits]\nrequests_per_minute_max = 5\nunfinished_tasks_max = 0\n";
    assert_eq!(usual(file, &[keys], Layer::new()), of(Some(5), None));
    let more = ("JUSTONCE_REQUESTS_PER_MINUTE_MAX", "6");
    assert_eq!(usual(file, &[more], Layer::new()), of(Some(6), None));
    let flags = flag("requests_per_minute_max", "0");
    assert_eq!(usual(file, &[more], flags), of(None, None));

    let file =
        "[users.\"a|b\"]\nrequests_per_minute_max = 0\n[users.c]\nunfinished_tasks_max = 7\n";
    let quotas = quotas(file, &[keys], Layer::new());
    let user = |name| quotas.of(&UserId::parse(name).unwrap());
    assert_eq!(user("a|b"), of(None, Some(1000)));
    assert_eq!(user("c"), of(Some(200), Some(7)));
    assert_eq!(user("d"), of(Some(200), Some(1000)));
}

#[test]
fn mistakes_in_quotas_are_named_with_their_line() {
    for (file, expected) in [
        ("[limits]\n\nrequests_per_minute_max = -1\n", "line 3"),
        ("[limits]\nunfinished_tasks_max = \"many\"\n", "line 2"),
        (
            "requests_per_minute_max = 1\n[limits]\nrequests_per_minute_max = 2\n",
            "line 3, column 1: requests_per_minute_max stands here twice",
        ),
        ("\n[users.\"no one\"]\n", "line 2, column 8: a user has"),
        ("[users.a]\nrequests = 1\n", "line 2"),
        (
            "unfinished_tasks_max = \"x\"\n",
            "line 1, column 24: \"x\" is not a number of tasks",
        ),
    ] {
        let refusal = refusal(file, &[]);
        assert!(refusal.contains(expected), "{file}: {refusal}");
    }
    let refusal = refusal("", &[("JUSTONCE_UNFINISHED_TASKS_MAX", "1.5")]);
    assert!(
        refusal.starts_with("JUSTONCE_UNFINISHED_TASKS_MAX: "),
        "{refusal}"
    );
}
