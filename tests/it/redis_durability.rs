//! What acknowledgements survive: named with each, and never less than the operator asks for.

use serde_json::{Value, json};

use crate::support::Reply;
use crate::support::client::Client;
use crate::support::deadline::until;
use crate::support::redis::{RedisServer, prefix};
use crate::support::service::Setup;

/// A replica on this server that promises at least so much.
fn replica(server: &RedisServer, floor: &str) -> Setup {
    Setup::new()
        .env("REDIS_URL", &server.url())
        .env("JUSTONCE_REDIS_PREFIX", &prefix())
        .env("JUSTONCE_DURABILITY", floor)
}

fn task(n: u32) -> Value {
    json!({"type": "echo", "params": {"n": n}})
}

async fn readyz_is(client: &Client, status: u16) {
    until("readyz", async || {
        let reply = client.get("/readyz").send().await;
        (reply.status == status).then_some(())
    })
    .await;
}

async fn accepted(client: &Client, task: &Value, key: &str) -> Reply {
    until("an acknowledgement", async || {
        let reply = client.submit(task, key).await;
        [200, 202].contains(&reply.status).then_some(reply)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floor_that_redis_does_not_reach_any_more_refuses() {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = RedisServer::start(&settings);
    let service = replica(&server, "fsync").start().await;
    let client = service.client();
    let accepted = client.submit(&task(1), "before").await.expect(202);
    assert_eq!(accepted.header("durability"), Some("fsync"));
    server.command(&["CONFIG", "SET", "appendfsync", "everysec"]);
    readyz_is(&client, 503).await;
    client
        .submit(&task(2), "during")
        .await
        .problem(503, "store-unavailable");
    server.command(&["CONFIG", "SET", "appendfsync", "always"]);
    readyz_is(&client, 200).await;
    client.submit(&task(2), "during").await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_syncs_each_second_is_waited_for() {
    let server = RedisServer::start_newer(&["--appendfsync", "everysec"]);
    let service = replica(&server, "fsync").start().await;
    let client = service.client();
    for n in 1..=3 {
        let reply = client.submit(&task(n), &format!("k{n}")).await.expect(202);
        assert_eq!(reply.header("durability"), Some("fsync"));
    }
    let repeated = client.submit(&task(1), "k1").await;
    assert_eq!(repeated.header("durability"), Some("fsync"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_on_two_machines_waits_for_the_second() {
    let primary = RedisServer::start_newer(&["--appendfsync", "always"]);
    let of_primary = ["--replicaof", "127.0.0.1", &primary.port.to_string()].map(str::to_owned);
    let of_primary: Vec<_> = of_primary.iter().map(String::as_str).collect();
    let copy = RedisServer::start_newer(&[&["--appendfsync", "always"], &of_primary[..]].concat());
    until("the copy", async || {
        let shown = copy.command(&["INFO", "replication"]);
        shown.contains("master_link_status:up").then_some(())
    })
    .await;
    let service = replica(&primary, "replicated-fsync").start().await;
    let client = service.client();
    let reply = accepted(&client, &task(1), "k1").await;
    assert_eq!(reply.header("durability"), Some("replicated-fsync"));
    copy.pause();
    let refused = client.submit(&task(2), "k2").await;
    refused.problem(503, "store-unavailable");
    copy.resume();
    let reply = accepted(&client, &task(2), "k2").await;
    assert_eq!(reply.header("durability"), Some("replicated-fsync"));
    assert_eq!(client.list("limit=10").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floor_out_of_reach_is_no_start() {
    let server = RedisServer::start(&[]);
    for floor in ["fsync", "replicated-fsync"] {
        let output = replica(&server, floor).command().output().await.unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(floor), "{said}");
    }
}
