//! What the contract names and this version cannot do yet: refused, never silently ignored.

use reqwest::Method;
use serde_json::json;

use crate::support::Setup;

#[tokio::test]
async fn routes_that_are_not_built_yet_are_not_found() {
    let service = Setup::new().start().await;
    let client = service.client();
    for (method, path) in [(Method::POST, "/v1/uploads"), (Method::POST, "/v1/tokens")] {
        let reply = client.request(method, path).json(&json!({})).send().await;
        reply.problem(404, "not-found");
    }
    let document = client.get("/openapi.json").send().await.expect(200).json();
    let paths = document["paths"].as_object().unwrap();
    for absent in ["/v1/uploads", "/v1/tokens"] {
        assert!(
            !paths.contains_key(absent),
            "{absent} is documented and not there"
        );
    }
}

#[tokio::test]
async fn stores_that_are_not_built_yet_do_not_start() {
    for store in ["redis:nowhere", "nonsense"] {
        let output = Setup::new()
            .env("JUSTONCE_STORE", store)
            .command()
            .output()
            .await
            .unwrap();
        assert!(!output.status.success(), "{store}");
        assert!(!output.stderr.is_empty(), "{store}: nothing was said");
    }
}
