//! Requests as bytes, made once.

use std::net::SocketAddr;

/// Sixteen digits that the client counts up, so that each request is another.
pub const COUNTER: &str = "0000000000000000";

/// Three digits that the client makes of its count: one of a thousand users.
pub const USER: &str = "user-000";

/// Always the same echo task under one key.
pub fn fixed(address: SocketAddr, key: &str) -> Vec<u8> {
    post(address, ("echo", key), "fixed", "")
}

/// An echo task of its own under a key of its own, each time.
pub fn unique(address: SocketAddr) -> Vec<u8> {
    post(address, ("echo", &format!("bench-{COUNTER}")), COUNTER, "")
}

/// The same as [`unique`], of this type and with these params, which hold a counter.
pub fn unique_of(address: SocketAddr, task_type: &str, params: &str) -> Vec<u8> {
    let body = format!(r#"{{"type":"{task_type}","params":{params}}}"#);
    format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {task_type}-{COUNTER}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The same as [`unique`], each of another user than the one before.
pub fn unique_of_users(address: SocketAddr) -> Vec<u8> {
    let fields = format!("X-User-Id: {USER}\r\n");
    let key = format!("bench-{COUNTER}");
    post(address, ("echo", &key), COUNTER, &fields)
}

/// The same as [`unique`], of a type that workers outside run.
pub fn unique_far(address: SocketAddr) -> Vec<u8> {
    post(address, ("far", &format!("far-{COUNTER}")), COUNTER, "")
}

/// The same as [`unique`], answered when the task has ended.
pub fn unique_waiting(address: SocketAddr) -> Vec<u8> {
    post(
        address,
        ("echo", &format!("wait-{COUNTER}")),
        &format!("w{COUNTER}"),
        "Prefer: wait=30\r\n",
    )
}

/// The same request, answered when the task has ended.
pub fn waiting(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    text.replacen("\r\n\r\n", "\r\nPrefer: wait=30\r\n\r\n", 1)
        .into_bytes()
}

pub fn stats(address: SocketAddr) -> Vec<u8> {
    format!("GET /stats HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()
}

pub fn post_json(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn post(address: SocketAddr, (task_type, key): (&str, &str), text: &str, fields: &str) -> Vec<u8> {
    let body = format!(r#"{{"type":"{task_type}","params":{}}}"#, params(text));
    format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {key}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn params(text: &str) -> String {
    format!(r#"{{"text":"{text}","language":"de","pages":12}}"#)
}

/// Length of the params of [`unique`].
pub fn params_bytes() -> usize {
    params(COUNTER).len()
}

/// Length of what an echo of them gives.
pub fn result_bytes() -> usize {
    params_bytes()
}
