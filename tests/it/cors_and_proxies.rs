//! Browsers from elsewhere, and balancers in front.

use reqwest::Method;
use serde_json::json;

use crate::support::{Client, Reply, Setup};

const OURS: &str = "https://app.example";

async fn preflight(client: &Client, origin: &str) -> Reply {
    client
        .request(Method::OPTIONS, "/v1/tasks")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,idempotency-key",
        )
        .send()
        .await
}

#[tokio::test]
async fn only_origins_that_are_named_may_call() {
    let origins = format!("{OURS}, http://localhost:3000");
    let service = Setup::new()
        .env("JUSTONCE_CORS_ORIGINS", &origins)
        .start()
        .await;
    let client = service.client();
    for origin in [OURS, "http://localhost:3000"] {
        let allowed = preflight(&client, origin).await;
        assert!(matches!(allowed.status, 200 | 204), "{}", allowed.status);
        assert_eq!(allowed.header("access-control-allow-origin"), Some(origin));
        let headers = allowed
            .header("access-control-allow-headers")
            .unwrap()
            .to_lowercase();
        assert!(headers.contains("idempotency-key"), "{headers}");
    }
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "null",
        "http://app.example",
    ] {
        let refused = preflight(&client, origin).await;
        assert_eq!(
            refused.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
    }
    let request = client
        .post("/v1/tasks")
        .key("k")
        .header("origin", OURS)
        .json(&json!({"type": "echo"}));
    let reply = request.send().await.expect(202);
    assert_eq!(reply.header("access-control-allow-origin"), Some(OURS));
    let exposed = reply
        .header("access-control-expose-headers")
        .unwrap()
        .to_lowercase();
    for name in [
        "location",
        "retry-after",
        "etag",
        "idempotency-key",
        "idempotent-replayed",
        "idempotency-expires",
        "preference-applied",
        "durability",
        "x-request-id",
    ] {
        assert!(
            exposed.split(',').any(|e| e.trim() == name),
            "{name}: {exposed}"
        );
    }
    // Refusals are readable too, else a page could not tell why.
    let problem = client
        .post("/v1/tasks")
        .header("origin", OURS)
        .json_text("{")
        .send()
        .await;
    problem.problem(400, "invalid-json");
    assert_eq!(problem.header("access-control-allow-origin"), Some(OURS));
}

#[tokio::test]
async fn by_default_no_origin_may_call() {
    let service = Setup::new().start().await;
    let client = service.client();
    assert_eq!(
        preflight(&client, OURS)
            .await
            .header("access-control-allow-origin"),
        None
    );
    let reply = client.get("/livez").header("origin", OURS).send().await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn everything_moves_below_the_base_path() {
    let service = Setup::new()
        .env("JUSTONCE_BASE_PATH", "/jobs/")
        .start()
        .await;
    let client = service.client();
    let reply = client
        .submit(&json!({"type": "echo"}), "k")
        .await
        .expect(202);
    let id = reply.id();
    let location = format!("/jobs/v1/tasks/{id}");
    assert_eq!(reply.header("location"), Some(location.as_str()));
    assert_eq!(reply.json()["links"]["self"], location);
    client.ended(&id).await;
    let root = Client::new(&format!("http://{}", service.address));
    let outside = root.get(&format!("/v1/tasks/{id}")).send().await;
    outside.problem(404, "not-found");
    let problem = client
        .get("/v1/tasks/none")
        .send()
        .await
        .problem(404, "not-found");
    let page = problem["type"].as_str().unwrap();
    assert!(page.starts_with("/jobs/problems/"), "{page}");
    root.get(page).send().await.expect(200);
    client.get("/docs").send().await.expect(200);
    let document = client.get("/openapi.json").send().await.expect(200).json();
    assert_eq!(document["servers"][0]["url"], "/jobs");
}

#[tokio::test]
async fn links_are_absolute_below_the_public_url() {
    let service = Setup::new()
        .env("JUSTONCE_PUBLIC_URL", "https://jobs.example/api")
        .start()
        .await;
    let reply = service
        .client()
        .submit(&json!({"type": "echo"}), "k")
        .await
        .expect(202);
    let location = format!("https://jobs.example/api/v1/tasks/{}", reply.id());
    assert_eq!(reply.header("location"), Some(location.as_str()));
    assert_eq!(reply.json()["links"]["self"], location);
}

#[tokio::test]
async fn a_foreign_host_does_not_change_links() {
    let service = Setup::new().start().await;
    let client = service.client();
    let reply = client
        .post("/v1/tasks")
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example")
        .header("forwarded", "host=evil.example;proto=https")
        .json(&json!({"type": "echo"}));
    let reply = reply.send().await.expect(202);
    assert!(!reply.header("location").unwrap().contains("evil"));
    assert!(!reply.text().contains("evil"));
}

#[tokio::test]
async fn only_trusted_proxies_say_who_the_client_is() {
    for (networks, trusted) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let service = Setup::new()
            .env("JUSTONCE_TRUSTED_PROXIES", networks)
            .env("LOG_FORMAT", "json")
            .env("RUST_LOG", "debug")
            .start()
            .await;
        let request = service
            .client()
            .get("/v1/tasks")
            .header("x-forwarded-for", "203.0.113.77");
        request.send().await.expect(200);
        let (_, setup) = {
            service.terminate();
            service.ended().await
        };
        let log = std::fs::read_to_string(setup.folder().join("log")).unwrap();
        assert_eq!(log.contains("203.0.113.77"), trusted, "{networks}: {log}");
    }
}
