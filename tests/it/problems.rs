//! Every refusal has one form, and its type is a page that says what to do.

use reqwest::Method;
use serde_json::json;

use crate::support::Setup;

#[tokio::test]
async fn refusals_of_handlers_and_of_layers_have_one_form() {
    let service = Setup::new().start().await;
    let client = service.client();
    let replies = [
        (client.get("/no/such/path").send().await, 404, "not-found"),
        (
            client.put("/v1/tasks").send().await,
            405,
            "method-not-allowed",
        ),
        (
            client.post("/v1/tasks").json_text("{").send().await,
            400,
            "invalid-json",
        ),
        (
            client.submit_keyless(&json!({"type": "none"})).await,
            422,
            "unknown-task-type",
        ),
        (
            client.post("/v1/tasks").body("x").send().await,
            415,
            "unsupported-media-type",
        ),
        (
            client.submit(&json!({"type": "echo"}), "{}").await,
            400,
            "idempotency-key-invalid",
        ),
    ];
    for (reply, status, code) in replies {
        let problem = reply.problem(status, code);
        let page = client
            .get(problem["type"].as_str().unwrap())
            .send()
            .await
            .expect(200);
        assert!(
            page.text().contains(problem["title"].as_str().unwrap()),
            "{code}"
        );
        assert_eq!(problem["retryable"], false);
    }
}

#[tokio::test]
async fn a_problem_names_its_request_and_its_place() {
    let service = Setup::new().start().await;
    let client = service.client();
    let request = client
        .get("/no/such/path?secret=1")
        .header("x-request-id", "abc-123");
    let reply = request.send().await;
    let problem = reply.problem(404, "not-found");
    assert_eq!(problem["request_id"], "abc-123");
    assert_eq!(problem["instance"], "/no/such/path");
}

#[tokio::test]
async fn a_method_that_is_not_there_names_those_that_are() {
    let service = Setup::new().start().await;
    let client = service.client();
    let cases = [
        (Method::DELETE, "/v1/tasks", vec!["GET", "POST"]),
        (Method::PATCH, "/v1/tasks/check", vec!["POST"]),
        (Method::POST, "/stats", vec!["GET"]),
        (Method::POST, "/livez", vec!["GET"]),
        (Method::GET, "/v1/tasks/check/none/such", vec![]),
    ];
    for (method, path, allowed) in cases {
        let reply = client.request(method.clone(), path).send().await;
        if allowed.is_empty() {
            reply.problem(404, "not-found");
            continue;
        }
        reply.problem(405, "method-not-allowed");
        let allow = reply
            .header("allow")
            .unwrap_or_else(|| panic!("{method} {path}: no Allow"));
        for method in allowed {
            assert!(allow.contains(method), "{path}: {allow}");
        }
    }
}

#[tokio::test]
async fn unusable_request_ids_are_replaced() {
    let service = Setup::new().start().await;
    let client = service.client();
    let own = client
        .get("/livez")
        .header("x-request-id", "usable-1")
        .send()
        .await;
    assert_eq!(own.header("x-request-id"), Some("usable-1"));
    for bad in ["a b\"c", &"x".repeat(500)] {
        let reply = client
            .get("/livez")
            .header("x-request-id", bad)
            .send()
            .await;
        let id = reply.header("x-request-id").unwrap();
        assert!(
            id != bad && !id.is_empty() && id.len() <= 128,
            "{bad}: {id}"
        );
    }
    let ours = client.get("/livez").send().await;
    let again = client.get("/livez").send().await;
    assert_ne!(ours.header("x-request-id"), again.header("x-request-id"));
}
