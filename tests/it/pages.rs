//! Health, numbers, documentation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::Setup;

#[tokio::test]
async fn health_has_its_shape() {
    let service = Setup::new().start().await;
    let client = service.client();
    for path in ["/livez", "/readyz", "/healthz", "/health"] {
        let reply = client.get(path).send().await.expect(200);
        assert_eq!(
            reply.header("content-type"),
            Some("application/health+json"),
            "{path}"
        );
        assert_eq!(reply.json()["status"], "pass", "{path}");
        assert!(reply.header("x-request-id").is_some());
    }
    let ready = client.get("/readyz").send().await.json();
    for check in [
        "store",
        "blobs",
        "workers",
        "draining",
        "eviction_policy",
        "sandbox",
    ] {
        assert!(ready["checks"].get(check).is_some(), "{check}: {ready}");
    }
    let health = client.get("/health").send().await.json();
    assert!(health["limits"]["concurrent_tasks"].is_number(), "{health}");
    assert!(
        health["limits"].get("rate_limit_per_minute").is_some(),
        "{health}"
    );
}

#[tokio::test]
async fn numbers_are_those_of_what_happened() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "params": {"n": 1}});
    let id = client.submit(&task, "k").await.id();
    client.ended(&id).await;
    client.submit(&task, "k").await.expect(200);
    client.submit_keyless(&task).await.expect(200);
    client
        .submit(&json!({"type": "echo", "params": {"n": 2}}), "k")
        .await
        .expect(422);
    client.echo(json!({"fail_permanently": true})).await;
    client
        .submit_keyless(&json!({"type": "echo", "params": {"n": 3}, "delay_seconds": 600}))
        .await;
    let cancelled = json!({"type": "echo", "params": {"n": 4}, "delay_seconds": 600});
    let cancelled = client.submit_keyless(&cancelled).await.id();
    client
        .post(&format!("/v1/tasks/{cancelled}/cancel"))
        .send()
        .await
        .expect(200);
    client
        .submit_keyless(&json!({"type": "nonsense"}))
        .await
        .expect(422);

    let stats = crate::support::deadline::until("what is counted behind the answer", async || {
        let stats = client.stats().await;
        let saved = stats["windows"]["all"]["saved"]["executions"] == 2;
        (saved && stats["running"] == 0).then_some(stats)
    })
    .await;
    let expected = json!({
        "total_tasks": 4, "pending": 1, "running": 0, "completed": 1, "failed": 1, "cancelled": 1,
        "scope": "all",
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(&stats[member], value, "{member}");
    }
    for window in ["all", "1m", "1h", "24h"] {
        let tally = &stats["windows"][window];
        let expected = json!({
            "accepted": 4, "duplicates_by_key": 1, "duplicates_by_fingerprint": 1, "cache_hits": 2,
            "key_reused": 1, "attempts": 2, "retries": 0, "failures": 1, "leases_lost": 0,
            "writes_fenced": 0,
        });
        for (member, value) in expected.as_object().unwrap() {
            assert_eq!(&tally[member], value, "{member} in {window}");
        }
        assert!((tally["dedup_rate"].as_f64().unwrap() - 2.0 / 6.0).abs() < 0.01);
        assert!(tally["retry_success_rate"].is_number());
        for saved in [
            "executions",
            "seconds",
            "bytes_not_sent",
            "bytes_not_stored",
        ] {
            assert!(tally["saved"][saved].is_number(), "{saved} in {window}");
        }
    }
    for latency in ["submit", "queue_wait", "run"] {
        for quantile in ["p50", "p90", "p99"] {
            assert!(
                stats["latency_ms"][latency][quantile].is_number(),
                "{latency} {quantile}"
            );
        }
    }
    assert!(stats["latency_ms"]["submit"]["p50"].as_f64().unwrap() > 0.0);
    assert_eq!(stats["queue"]["depth"], 0);
    assert!(stats["queue"]["oldest_seconds"].is_number());
    for member in ["busy", "idle", "replicas"] {
        assert!(stats["workers"][member].is_number(), "{member}");
    }
    assert!(stats["by_type"]["echo"].is_object());
    assert!(stats["generated_at"].is_string());

    // The numbers are kept with the tasks.
    let service = service.kill().await.start().await;
    let after = service.client().stats().await;
    assert_eq!(after["windows"]["all"]["accepted"], 4);
    assert_eq!(after["total_tasks"], 4);
}

#[tokio::test]
async fn metrics_are_what_a_scraper_reads() {
    let service = Setup::new().start().await;
    let client = service.client();
    client.echo(json!({"n": 1})).await;
    let reply = client.get("/metrics").send().await.expect(200);
    let media_type = reply.header("content-type").unwrap();
    assert!(
        media_type.starts_with("application/openmetrics-text")
            || media_type.starts_with("text/plain")
    );
    let text = reply.text();
    let mut declared = BTreeSet::new();
    let mut samples = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(declared.insert(name.to_owned()), "{name} is declared twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(series.to_owned()), "{series} occurs twice");
            let name = series.split('{').next().unwrap();
            assert!(
                declared.iter().any(|d| name.starts_with(d.as_str())),
                "{name} is not declared"
            );
            assert!(
                name.starts_with("justonce_") || name.starts_with("process_"),
                "{name}"
            );
        }
    }
    assert!(samples.len() > 5, "{text}");
    for id_like in ["request_id", "task_id", "idempotency_key"] {
        assert!(!text.contains(id_like), "a label without bound: {id_like}");
    }
}

#[tokio::test]
async fn documentation_comes_from_the_binary_alone() {
    let service = Setup::new().start().await;
    let client = service.client();
    for path in ["/docs", "/docs/"] {
        let page = client.get(path).send().await.expect(200);
        assert!(
            page.header("content-type")
                .unwrap()
                .starts_with("text/html")
        );
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        let html = page.text();
        for outside in ["http://", "https://", "src=\"//", "href=\"//"] {
            assert!(!html.contains(outside), "{path} loads from outside: {html}");
        }
        for name in attribute_values(&html) {
            let name = name.trim_start_matches("./");
            let local = match name.strip_prefix('/') {
                Some(_) => name.to_owned(),
                None => format!("/docs/{}", name.trim_start_matches("docs/")),
            };
            client.get(&local).send().await.expect(200);
        }
    }
}

/// What `src` and `href` name.
fn attribute_values(html: &str) -> Vec<&str> {
    let after = |attribute: &'static str| {
        html.split(attribute)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
    };
    after("src=\"").chain(after("href=\"")).collect()
}

/// `UPDATE_GOLDEN=1` writes the file anew, to be read and committed.
#[tokio::test]
async fn the_openapi_document_is_the_committed_one() {
    let service = Setup::new().start().await;
    let document = service
        .client()
        .get("/openapi.json")
        .send()
        .await
        .expect(200)
        .json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi")).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let golden = std::fs::read(path).expect("openapi/openapi.json");
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    assert_eq!(
        document, golden,
        "run the test with UPDATE_GOLDEN=1 and read the difference"
    );
}

#[tokio::test]
async fn every_documented_path_is_served() {
    let service = Setup::new().start().await;
    let client = service.client();
    let document = client.get("/openapi.json").send().await.expect(200).json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let concrete = path
            .replace("{id}", &"0".repeat(36))
            .replace("{sha256}", &"0".repeat(64))
            .replace("{type}", "echo")
            .replace("{name}", "nightly")
            .replace("{slug}", "not-found");
        assert!(!concrete.contains('{'), "{path}");
        for method in methods.as_object().unwrap().keys() {
            let Ok(method) = method.to_uppercase().parse::<reqwest::Method>() else {
                continue;
            };
            // Some answers have no end.
            let reply = client.request(method.clone(), &concrete).begin().await;
            let status = reply.status();
            assert!(!status.is_server_error(), "{method} {path}: {status}");
            assert_ne!(status, 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_problem_has_its_page() {
    let service = Setup::new().start().await;
    let client = service.client();
    let slugs = "invalid-json invalid-request idempotency-key-missing idempotency-key-invalid \
        digest-mismatch unauthenticated forbidden not-found method-not-allowed request-timeout \
        duplicate-submission task-failed task-ended task-unfinished lease-lost result-expired \
        task-forgotten payload-too-large unsupported-media-type file-unknown \
        idempotency-key-reused validation-failed unknown-task-type quota-exceeded internal \
        store-unavailable queue-full overloaded draining storage-full";
    let index = client.get("/problems").send().await.expect(200).text();
    for slug in slugs.split_whitespace() {
        let page = client
            .get(&format!("/problems/{slug}"))
            .send()
            .await
            .expect(200);
        assert!(page.text().contains(slug), "{slug}");
        assert!(index.contains(slug), "{slug} is not in the index");
    }
    client
        .get("/problems/none-such")
        .send()
        .await
        .problem(404, "not-found");
    client
        .get("/problems/<script>")
        .send()
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn the_binary_asks_itself_for_its_health() {
    let service = Setup::new().start().await;
    let url = format!("http://{}", service.address);
    let ask = async |url: &str| {
        let mut command = service.setup().command();
        command
            .env("JUSTONCE_URL", url)
            .arg("healthcheck")
            .output()
            .await
            .unwrap()
    };
    assert!(ask(&url).await.status.success());
    assert!(!ask("http://127.0.0.1:1").await.status.success());
}
