//! The limit program on Redis: as little as an HTTP service can do that keeps one task a key and queues it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use redis::aio::MultiplexedConnection;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// Reserves and queues, or answers a duplicate.
/// KEYS[1] the key  KEYS[2] the queue  KEYS[3] the new task
/// ARGV[1] the new task's id  ARGV[2] fingerprint  ARGV[3] submission
/// Replies: new · duplicate, id · other
const SCRIPT: &str = "#!lua
local known = redis.call('HMGET', KEYS[1], 'task', 'fingerprint')
if known[1] then
  return known[2] == ARGV[2] and { 'duplicate', known[1] } or { 'other' }
end
redis.call('HSET', KEYS[1], 'task', ARGV[1], 'fingerprint', ARGV[2])
redis.call('HSET', KEYS[3], 'state', 'queued', 'body', ARGV[3])
redis.call('RPUSH', KEYS[2], ARGV[1])
return { 'new' }
";

#[derive(Clone)]
struct Program {
    connection: MultiplexedConnection,
    script: Arc<redis::Script>,
}

/// Serves on a free port, which it prints.
#[tokio::main]
pub async fn serve(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let program = Program {
        connection: client.get_multiplexed_async_connection().await.unwrap(),
        script: Arc::new(redis::Script::new(SCRIPT)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/v1/tasks", post(admit))
        .with_state(program);
    axum::serve(listener, router).await.unwrap();
}

async fn admit(State(program): State<Program>, headers: HeaderMap, body: Bytes) -> Response {
    if serde_json::from_slice::<serde_json::Value>(&body).is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let key = headers.get("idempotency-key");
    let Some(key) = key.and_then(|key| key.to_str().ok()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let fingerprint = Sha256::digest(&body);
    let id = uuid::Uuid::new_v4().simple().to_string();
    let mut call = program.script.prepare_invoke();
    call.key(format!("{{limit}}:key:{key}"))
        .key("{limit}:queue")
        .key(format!("{{limit}}:task:{id}"))
        .arg(&id)
        .arg(&fingerprint[..])
        .arg(&body[..]);
    let reply: Vec<String> = call
        .invoke_async(&mut program.connection.clone())
        .await
        .unwrap();
    let (status, id) = match reply.first().map(String::as_str) {
        Some("new") => (StatusCode::ACCEPTED, &id),
        Some("duplicate") => (StatusCode::OK, &reply[1]),
        _ => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    };
    let text = format!("{{\"id\":\"{id}\"}}");
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
