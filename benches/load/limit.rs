//! The limit program: as little as an HTTP service can do with a submission.

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// Serves on a free port, which it prints.
#[tokio::main]
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/tasks", post(parse_hash_reply));
    axum::serve(listener, router).await.unwrap();
}

async fn parse_hash_reply(body: Bytes) -> Response {
    if serde_json::from_slice::<serde_json::Value>(&body).is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let hash = Sha256::digest(&body);
    let mut text = String::with_capacity(96);
    text.push_str("{\"fingerprint\":\"");
    for byte in hash {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push_str("\"}");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
