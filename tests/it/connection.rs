//! Bytes that no well-behaved client sends. Each has one answer, and the service lives on.

use serde_json::json;

use crate::support::wire::{Answer, Wire};
use crate::support::{Service, Setup};

async fn one_answer(service: &Service, request: impl AsRef<[u8]>) -> (Option<Answer>, Vec<u8>) {
    let mut wire = Wire::connect(service.address).await;
    wire.send(request).await;
    let answer = wire.answer().await;
    let rest = wire.closed().await;
    (answer, rest)
}

async fn refused(service: &Service, request: &str, statuses: &[u16]) {
    let (answer, rest) = one_answer(service, request).await;
    let answer = answer.unwrap_or_else(|| panic!("no answer to {request:?}"));
    assert!(
        statuses.contains(&answer.status),
        "{}: {request:?}",
        answer.status
    );
    assert!(
        rest.is_empty(),
        "a second answer to {request:?}: {}",
        String::from_utf8_lossy(&rest)
    );
}

#[tokio::test]
async fn a_silent_connection_is_ended() {
    let service = Setup::new()
        .config("[limits]\nheader_timeout_seconds = 1\n")
        .start()
        .await;
    for beginning in [
        "",
        "GET /livez HTTP/1.1\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nX-Half",
        "PRI * HT",
    ] {
        let mut wire = Wire::connect(service.address).await;
        wire.send(beginning).await;
        let said = wire.closed().await;
        let text = String::from_utf8_lossy(&said);
        assert!(
            said.is_empty() || text.starts_with("HTTP/1.1 408") || text.starts_with("HTTP/1.1 400"),
            "{text}"
        );
    }
    let mut silent = Wire::connect(service.address).await;
    silent.send("GET /livez HTTP/1.1\r\nHo").await;
    let answer = silent.answer().await.expect("a last word");
    assert_eq!(answer.status, 408);
    service.client().get("/livez").send().await.expect(200);
}

#[tokio::test]
async fn many_silent_connections_leave_room_for_others() {
    let service = Setup::new()
        .config("[limits]\nheader_timeout_seconds = 5\n")
        .start()
        .await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(Wire::connect(service.address).await);
    }
    let done = service.client().echo(json!({"n": 1})).await;
    assert_eq!(done["state"], "succeeded");
    for wire in &mut silent {
        wire.closed().await;
    }
}

#[tokio::test]
async fn a_body_that_dribbles_is_ended_and_leaves_nothing() {
    let config = "[limits]\nbody_grace_seconds = 1\nbody_bytes_per_second_min = 1000\n";
    let service = Setup::new().config(config).start().await;
    for path in ["/v1/files?type=echo", "/v1/tasks"] {
        let mut wire = Wire::connect(service.address).await;
        wire.send(format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{"
        ))
        .await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.status, 408, "{path}");
        assert_eq!(answer.json()["code"], "request-timeout");
        wire.closed().await;
    }
    crate::support::deadline::until("the beginnings to be removed", async || {
        service.stored_files().is_empty().then_some(())
    })
    .await;
    assert_eq!(service.client().stats().await["total_tasks"], 0);
}

#[tokio::test]
async fn an_idle_connection_is_ended_between_requests() {
    let service = Setup::new()
        .config("[limits]\nkeep_alive_idle_seconds = 1\n")
        .start()
        .await;
    let mut wire = Wire::connect(service.address).await;
    for _ in 0..2 {
        wire.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    wire.closed().await;
}

#[tokio::test]
async fn one_host_is_needed() {
    let service = Setup::new().start().await;
    refused(&service, "GET /livez HTTP/1.1\r\n\r\n", &[400]).await;
    refused(
        &service,
        "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        &[400],
    )
    .await;
    refused(
        &service,
        "GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        &[400],
    )
    .await;
}

#[tokio::test]
async fn a_request_that_two_servers_could_cut_differently_gets_one_answer() {
    let service = Setup::new().start().await;
    let smuggled = "GET /v1/tasks?smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let request = format!("{head}{fields}\r\n0\r\n\r\n{smuggled}");
        let (answer, rest) = one_answer(&service, request).await;
        assert!((400..500).contains(&answer.unwrap().status), "{fields}");
        assert!(
            rest.is_empty(),
            "{fields}: {}",
            String::from_utf8_lossy(&rest)
        );
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "X-Folded: a\r\n b\r\nContent-Length: 0\r\n",
    ] {
        refused(
            &service,
            &format!("{head}{fields}\r\n12345{smuggled}"),
            &[400, 501],
        )
        .await;
    }
    assert!(!service.log_text().contains("smuggled"));
}

#[tokio::test]
async fn too_many_and_too_long_headers_are_refused() {
    let service = Setup::new().start().await;
    let fields: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    refused(
        &service,
        &format!("GET /livez HTTP/1.1\r\nHost: x\r\n{fields}\r\n"),
        &[400, 431],
    )
    .await;
    let long = "y".repeat(64 * 1024);
    refused(
        &service,
        &format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        &[400, 431],
    )
    .await;
    let path = "p".repeat(64 * 1024);
    refused(
        &service,
        &format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        &[400, 414, 431],
    )
    .await;
    service.client().get("/livez").send().await.expect(200);
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let service = Setup::new().start().await;
    let mut wire = Wire::connect(service.address).await;
    let one = |id: usize| format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: n-{id}\r\n\r\n");
    let all: String = (0..100).map(one).collect();
    wire.send(all).await;
    for id in 0..100 {
        let answer = wire.answer().await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("x-request-id"),
            Some(format!("n-{id}").as_str())
        );
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_or_are_refused_and_nobody_starves() {
    let config = "[limits]\nconnections_max = 8\nheader_timeout_seconds = 2\n";
    let service = Setup::new().config(config).start().await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(Wire::connect(service.address).await);
    }
    for wire in &mut silent {
        wire.closed().await;
    }
    crate::support::deadline::until("a free place", async || {
        let reply = service.client().get("/livez").try_send().await?;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_after_its_body_has_submitted() {
    let service = Setup::new().start().await;
    let body = r#"{"type":"echo","params":{"left":true}}"#;
    let mut wire = Wire::connect(service.address).await;
    wire.send(format!(
        "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: left\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    drop(wire);
    let client = service.client();
    let task = serde_json::from_str(body).unwrap();
    let id = client.submit(&task, "left").await.id();
    assert_eq!(client.ended(&id).await["state"], "succeeded");
    assert_eq!(client.stats().await["total_tasks"], 1);
}

#[tokio::test]
async fn what_a_client_sends_cannot_forge_log_lines_or_leak_secrets() {
    let service = Setup::new().env("LOG_FORMAT", "json").start().await;
    let client = service.client();
    let query = "?type=echo&filename=a%0aforged%1b%5b31m.csv";
    client
        .post(&format!("/v1/files{query}"))
        .body("x")
        .send()
        .await;
    let request = client
        .get("/v1/tasks/%0d%0aforged")
        .header("authorization", "Bearer planted-secret");
    request.header("user-agent", "a\tb").send().await;
    for line in service
        .log_text()
        .lines()
        .filter(|line| line.starts_with('{'))
    {
        let entry: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(entry.is_ok(), "{line}");
    }
    let log = service.log_text();
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
    assert!(!log.contains("planted-secret"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}
