//! A small HTTP client that shows answers as they are.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, multipart};
use serde_json::{Value, json};

use super::deadline::{PATIENCE, until, within};

/// Calls one service as one user.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    headers: HeaderMap,
}

impl Client {
    pub fn new(base: &str) -> Self {
        justonce::cryptography::choose();
        let http = reqwest::Client::builder()
            // Nothing here is encrypted: the system's certificates need not be read each time.
            .tls_certs_only([])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Client {
            http,
            base: base.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    /// The same client, as another user of a service without authentication.
    pub fn user(&self, user: &str) -> Self {
        self.with_header("x-user-id", user)
    }

    /// The same client with an API key.
    pub fn bearer(&self, secret: &str) -> Self {
        self.with_header("authorization", &format!("Bearer {secret}"))
    }

    fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        let value = HeaderValue::from_str(value).unwrap();
        client.headers.insert(HeaderName::from_static(name), value);
        client
    }

    pub fn request(&self, method: Method, path: &str) -> Request {
        let request = self.http.request(method, format!("{}{path}", self.base));
        Request(request.headers(self.headers.clone()))
    }

    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }

    pub fn put(&self, path: &str) -> Request {
        self.request(Method::PUT, path)
    }

    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    /// `POST /v1/tasks` with a key.
    pub async fn submit(&self, task: &Value, key: &str) -> Reply {
        self.post("/v1/tasks").key(key).json(task).send().await
    }

    /// `POST /v1/tasks` without a key.
    pub async fn submit_keyless(&self, task: &Value) -> Reply {
        self.post("/v1/tasks").json(task).send().await
    }

    /// Submits an echo of `params` without a key and waits for its end.
    pub async fn echo(&self, params: Value) -> Value {
        let reply = self
            .submit_keyless(&json!({"type": "echo", "params": params}))
            .await;
        self.ended(&reply.id()).await
    }

    pub async fn task(&self, id: &str) -> Value {
        let reply = self.get(&format!("/v1/tasks/{id}")).send().await;
        reply.expect(200).json()
    }

    /// The task once it has ended, by long polling.
    pub async fn ended(&self, id: &str) -> Value {
        until("the end of a task", async || {
            let reply = self.get(&format!("/v1/tasks/{id}")).wait(20).send().await;
            let task = reply.expect(200).json();
            is_ended(&task).then_some(task)
        })
        .await
    }

    /// The task once it is in `state`.
    pub async fn in_state(&self, id: &str, state: &str) -> Value {
        until(state, async || {
            let task = self.task(id).await;
            (task["state"] == state).then_some(task)
        })
        .await
    }

    /// The only task that a list query finds.
    pub async fn list(&self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/v1/tasks?{query}")).send().await;
        page.expect(200).json()["items"].as_array().unwrap().clone()
    }

    pub async fn stats(&self) -> Value {
        self.get("/stats").send().await.expect(200).json()
    }
}

pub fn is_ended(task: &Value) -> bool {
    matches!(
        task["state"].as_str(),
        Some("succeeded" | "failed" | "cancelled")
    )
}

/// A request in the making.
pub struct Request(reqwest::RequestBuilder);

impl Request {
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub fn wait(self, seconds: u32) -> Self {
        self.header("prefer", &format!("wait={seconds}"))
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Request(self.0.header(name, value))
    }

    pub fn header_bytes(self, name: &str, value: &[u8]) -> Self {
        Request(self.0.header(name, HeaderValue::from_bytes(value).unwrap()))
    }

    pub fn json(self, value: &Value) -> Self {
        Request(self.0.json(value))
    }

    /// JSON text as it stands.
    pub fn json_text(self, text: impl Into<Body>) -> Self {
        self.header("content-type", "application/json").body(text)
    }

    pub fn body(self, body: impl Into<Body>) -> Self {
        Request(self.0.body(body))
    }

    pub fn multipart(self, form: multipart::Form) -> Self {
        Request(self.0.multipart(form))
    }

    pub async fn send(self) -> Reply {
        Reply::read(self.0.timeout(PATIENCE).send().await.unwrap()).await
    }

    /// The answer as soon as it begins.
    pub async fn begin(self) -> reqwest::Response {
        within("the beginning of an answer", self.0.send())
            .await
            .unwrap()
    }

    /// None when there was no whole answer.
    pub async fn try_send(self) -> Option<Reply> {
        let response = self.0.timeout(PATIENCE).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.ok()?;
        Some(Reply {
            status,
            headers,
            body,
        })
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    async fn read(response: reqwest::Response) -> Reply {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = within("the body of an answer", response.bytes())
            .await
            .unwrap();
        Reply {
            status,
            headers,
            body,
        }
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The header's only value.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        assert!(values.len() <= 1, "{name} occurs {} times", values.len());
        values.first().map(|value| value.to_str().unwrap())
    }

    /// The id of the task in the body of an acknowledgement.
    #[track_caller]
    pub fn id(&self) -> String {
        assert!(
            matches!(self.status, 200 | 202),
            "{}: {}",
            self.status,
            self.text()
        );
        self.json()["id"].as_str().unwrap().to_owned()
    }

    /// The problem document, which must be whole and have this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail", "instance", "request_id"] {
            let text = problem[member].as_str();
            assert!(text.is_some_and(|t| !t.is_empty()), "{member}: {problem}");
        }
        for member in ["retryable", "same_key"] {
            assert!(problem[member].is_boolean(), "{member}: {problem}");
        }
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        problem
    }
}
