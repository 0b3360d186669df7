//! The router with its layers, over a stand-in store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::api::{Api, AuthMode};
use super::api_key::PresentedKey;
use super::clock;
use super::stand_in::{StandIn, api, parts};
use crate::domain::principal::{Scope, UserId};
use crate::store::Store;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("a JSON body")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks the form that every refusal has.
    fn is_problem(&self, code: &str) -> bool {
        let document = self.json();
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(document["status"], self.status.as_u16());
        assert_eq!(document["request_id"], self.header("x-request-id").unwrap());
        document["code"] == code
    }
}

async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 10_000_000).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn get(router: &Router, path: &str) -> Answer {
    ask(router, request("GET", path, &[])).await
}

fn open() -> (Arc<StandIn>, Router) {
    let store = Arc::new(StandIn::default());
    let router = super::router(api(&store, AuthMode::Off));
    (store, router)
}

/// A router that asks for keys, and a `Bearer …` with these scopes.
async fn closed(scopes: &[Scope]) -> (Arc<StandIn>, Router, String) {
    let store = Arc::new(StandIn::default());
    let router = super::router(api(&store, AuthMode::Keys));
    let bearer = key(&store, "owner", scopes).await;
    (store, router, bearer)
}

async fn key(store: &StandIn, user: &str, scopes: &[Scope]) -> String {
    let (text, key) = PresentedKey::random().unwrap();
    let scopes = scopes.iter().copied().collect();
    let user = UserId::parse(user).unwrap();
    let record = key.into_record(user, scopes, clock::now(), None);
    store.create_api_key(record).await.unwrap();
    format!("Bearer {text}")
}

#[tokio::test]
async fn refusals_of_layers_are_problems() {
    let (_, router) = open();
    let unknown = get(&router, "/nowhere").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.is_problem("not-found"));
    assert_eq!(unknown.json()["instance"], "/nowhere");

    let wrong = ask(&router, request("PATCH", "/v1/keys", &[])).await;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong.is_problem("method-not-allowed"));
    assert_eq!(wrong.header("allow"), Some("GET, POST, HEAD"));
    assert_eq!(wrong.header("x-content-type-options"), Some("nosniff"));

    let encoding = get(&router, "/problems/%ff").await;
    assert_eq!(encoding.status, StatusCode::BAD_REQUEST);
    assert!(encoding.is_problem("invalid-request"));
}

#[tokio::test]
async fn a_panic_is_a_problem_without_its_text() {
    let (store, router) = open();
    store.panics.store(true, Ordering::Relaxed);
    let answer = get(&router, "/stats").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.is_problem("internal"));
    assert!(!answer.text.contains("stand-in"), "{}", answer.text);
}

#[tokio::test]
async fn causes_stay_inside() {
    let (store, router) = open();
    store.is_down.store(true, Ordering::Relaxed);
    let answer = get(&router, "/stats").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.is_problem("store-unavailable"));
    assert!(!answer.text.contains("secret cause"));
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn the_request_id_of_the_client_is_kept() {
    let (_, router) = open();
    let sent = [("x-request-id", "mine-1")];
    let answer = ask(&router, request("GET", "/livez", &sent)).await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
}

#[tokio::test]
async fn users_are_named_freely_while_authentication_is_off() {
    let (_, router) = open();
    let bad = [("x-user-id", "a b")];
    let answer = ask(&router, request("GET", "/stats", &bad)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.is_problem("invalid-request"));
    let stats = get(&router, "/stats").await.json();
    assert_eq!(
        (&stats["scope"], &stats["pending"]),
        (&json!("all"), &json!(2))
    );
}

#[tokio::test]
async fn keys_open_what_their_scopes_name() {
    let (store, router, bearer) = closed(&[Scope::Read]).await;
    let with = |path: &str, bearer: &str| request("GET", path, &[("authorization", bearer)]);

    let without = get(&router, "/stats").await;
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
    assert!(without.is_problem("unauthenticated"));
    assert_eq!(without.header("www-authenticate"), Some("Bearer"));
    let forged = format!("{bearer}0");
    for wrong in [forged.as_str(), "Bearer jo_aaaaaaaaaaaa_x", "Basic abc"] {
        let answer = ask(&router, with("/stats", wrong)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }

    let own = ask(&router, with("/stats", &bearer)).await.json();
    assert_eq!(
        (&own["scope"], &own["pending"]),
        (&json!("user"), &json!(1))
    );
    let answer = ask(&router, with("/metrics", &bearer)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.is_problem("forbidden"));

    let all = key(&store, "other", &[Scope::Metrics]).await;
    let all = ask(&router, with("/stats", &all)).await.json();
    assert_eq!(all["scope"], "all");
}

#[tokio::test]
async fn only_act_as_speaks_for_others() {
    let (store, router, bearer) = closed(&[Scope::Read]).await;
    let speaking = |bearer: &str, user: &str| {
        let headers = [("authorization", bearer), ("x-user-id", user)];
        request("GET", "/stats", &headers)
    };
    let own = ask(&router, speaking(&bearer, "owner")).await;
    assert_eq!(own.status, StatusCode::OK);
    let other = ask(&router, speaking(&bearer, "other")).await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    let gateway = key(&store, "gateway", &[Scope::ActAs]).await;
    let other = ask(&router, speaking(&gateway, "other")).await;
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn a_key_is_made_shown_once_used_and_revoked() {
    let (_, router, admin) = closed(&[Scope::Admin]).await;
    let mut make = request(
        "POST",
        "/v1/keys",
        &[
            ("authorization", &admin),
            ("content-type", "application/json"),
        ],
    );
    *make.body_mut() = Body::from(r#"{"user": "u1", "scopes": ["read"]}"#);
    let made = ask(&router, make).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.json();
    assert_eq!(
        (&made["user"], &made["scopes"]),
        (&json!("u1"), &json!(["read"]))
    );
    let bearer = format!("Bearer {}", made["key"].as_str().unwrap());
    let used = [("authorization", bearer.as_str())];
    assert_eq!(
        ask(&router, request("GET", "/stats", &used)).await.status,
        StatusCode::OK
    );

    let admin = [("authorization", admin.as_str())];
    let list = ask(&router, request("GET", "/v1/keys", &admin)).await;
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 2);
    assert!(!list.text.contains(made["key"].as_str().unwrap()));

    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    let revoked = ask(&router, request("DELETE", &path, &admin)).await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    let late = ask(&router, request("GET", "/stats", &used)).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    let again = ask(&router, request("DELETE", &path, &admin)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn expired_keys_are_refused_and_valid_ones_remembered_for_a_moment() {
    let (store, router, bearer) = closed(&[Scope::Read]).await;
    let used = [("authorization", bearer.as_str())];
    for _ in 0..3 {
        let answer = ask(&router, request("GET", "/stats", &used)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(store.look_ups.load(Ordering::Relaxed), 1);

    let (text, key) = PresentedKey::random().unwrap();
    let user = UserId::anonymous();
    let scopes = [Scope::Read].into_iter().collect();
    let record = key.into_record(user, scopes, clock::now(), Some(clock::now()));
    store.create_api_key(record).await.unwrap();
    let expired = format!("Bearer {text}");
    let expired = [("authorization", expired.as_str())];
    let answer = ask(&router, request("GET", "/stats", &expired)).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn readiness_follows_store_blobs_and_drain() {
    let store = Arc::new(StandIn::default());
    let api: Api = api(&store, AuthMode::Off);
    let router = super::router(api.clone());
    let ready = get(&router, "/health").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(
        ready.header("content-type"),
        Some("application/health+json")
    );
    assert_eq!(ready.json()["status"], "pass");
    assert_eq!(
        ready.json()["limits"],
        json!({"concurrent_tasks": 4, "rate_limit_per_minute": null})
    );

    store.is_down.store(true, Ordering::Relaxed);
    for path in ["/readyz", "/healthz", "/health"] {
        let answer = get(&router, path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["checks"]["store"]["status"], "fail");
    }
    assert_eq!(get(&router, "/livez").await.status, StatusCode::OK);
    store.is_down.store(false, Ordering::Relaxed);

    store.blobs_are_down.store(true, Ordering::Relaxed);
    assert_eq!(
        get(&router, "/readyz").await.json()["checks"]["blobs"]["status"],
        "fail"
    );
    store.blobs_are_down.store(false, Ordering::Relaxed);

    api.draining.cancel();
    let draining = get(&router, "/readyz").await;
    assert_eq!(draining.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(draining.json()["checks"]["draining"]["status"], "fail");
}

#[tokio::test]
async fn strangers_see_only_the_status_of_readiness() {
    let (_, router, bearer) = closed(&[Scope::Read]).await;
    let stranger = get(&router, "/readyz").await;
    assert_eq!(stranger.json(), json!({"status": "pass"}));
    let used = [("authorization", bearer.as_str())];
    let known = ask(&router, request("GET", "/readyz", &used)).await;
    assert!(known.json()["checks"]["store"].is_object());
    for path in ["/livez", "/docs", "/docs/", "/openapi.json", "/problems"] {
        assert_eq!(get(&router, path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn browsers_may_call_only_from_the_origins_that_are_named() {
    let store = Arc::new(StandIn::default());
    let mut parts = parts(&store, AuthMode::Keys);
    parts.edge.cors_origins = vec!["https://app.example".to_owned()];
    let router = super::router(Api::new(parts));

    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "DELETE"),
            (
                "access-control-request-headers",
                "authorization,idempotency-key",
            ),
        ];
        request("OPTIONS", "/v1/keys/x", &headers)
    };
    let allowed = ask(&router, preflight("https://app.example")).await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert!(
        allowed
            .header("access-control-allow-headers")
            .unwrap()
            .contains("idempotency-key")
    );
    assert!(allowed.header("x-request-id").is_some());
    let refused = ask(&router, preflight("https://evil.example")).await;
    assert_eq!(refused.header("access-control-allow-origin"), None);

    let origin = [("origin", "https://app.example")];
    let problem = ask(&router, request("GET", "/stats", &origin)).await;
    assert_eq!(problem.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        problem.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let exposed = problem.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("idempotent-replayed"));

    let (_, plain) = open();
    let answer = ask(&plain, request("GET", "/livez", &origin)).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_base_path_is_before_every_path_and_link() {
    let store = Arc::new(StandIn::default());
    let mut parts = parts(&store, AuthMode::Off);
    parts.edge.base_path = "/jobs".to_owned();
    let router = super::router(Api::new(parts));
    for path in [
        "/jobs/stats",
        "/jobs/livez",
        "/livez",
        "/readyz",
        "/jobs/docs/",
    ] {
        assert_eq!(get(&router, path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(get(&router, "/stats").await.status, StatusCode::NOT_FOUND);
    let missing = get(&router, "/jobs/nowhere").await;
    assert!(missing.is_problem("not-found"));
    assert_eq!(missing.json()["type"], "/jobs/problems/not-found");
    assert_eq!(missing.json()["instance"], "/jobs/nowhere");
    let document = get(&router, "/jobs/openapi.json").await.json();
    assert_eq!(document["servers"], json!([{"url": "/jobs"}]));
    let initializer = get(&router, "/jobs/docs/swagger-initializer.js").await;
    assert!(initializer.text.contains("/jobs/openapi.json"));
}

#[tokio::test]
async fn the_documentation_links_nothing_outside() {
    let (_, router) = open();
    let page = get(&router, "/docs").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.text.contains("\"docs/swagger-ui.css\""),
        "{}",
        page.text
    );
    assert!(!page.text.contains("//"), "{}", page.text);
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("script-src 'self'")
    );
    let folder = get(&router, "/docs/").await;
    assert!(folder.text.contains("\"./swagger-ui.css\""));
    let initializer = get(&router, "/docs/swagger-initializer.js").await;
    assert!(
        initializer.text.contains("\"validatorUrl\": \"none\""),
        "{}",
        initializer.text
    );
    let zipped = [("accept-encoding", "gzip")];
    let bundle = ask(
        &router,
        request("GET", "/docs/swagger-ui-bundle.js", &zipped),
    )
    .await;
    assert_eq!(bundle.header("content-encoding"), Some("gzip"));
    assert!(bundle.header("cache-control").unwrap().contains("max-age"));
}

#[tokio::test]
async fn problems_are_explained_to_people_and_programs() {
    let (_, router) = open();
    let document = get(&router, "/problems/queue-full").await.json();
    assert_eq!(document["status"], 503);
    let browser = [("accept", "text/html,*/*;q=0.8")];
    let page = ask(
        &router,
        request("GET", "/problems/unauthenticated", &browser),
    )
    .await;
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(page.text.contains("Bearer &lt;key>"), "{}", page.text);
    let list = get(&router, "/problems").await.json();
    assert_eq!(list.as_array().unwrap().len(), super::code::TABLE.len());
    assert!(
        get(&router, "/problems/nothing")
            .await
            .is_problem("not-found")
    );
}

#[tokio::test]
async fn metrics_are_those_of_stats_and_of_requests() {
    let (_, router) = open();
    get(&router, "/problems/queue-full").await;
    let text = get(&router, "/metrics").await.text;
    for line in [
        r#"justonce_tasks{type="echo",state="queued"} 2"#,
        r#"justonce_submissions_total{outcome="accepted"} 0"#,
        r#"justonce_queue_oldest_seconds 1.5"#,
        r#"justonce_http_requests_total{method="GET",route="/problems/{slug}",status="2xx"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
