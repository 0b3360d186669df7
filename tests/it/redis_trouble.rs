//! Replicas on a Redis that is in trouble: refused in time, unready, and back by themselves.

use std::process::Command;

use serde_json::json;

use crate::support::client::Client;
use crate::support::deadline::{until, within};
use crate::support::redis::{RedisServer, prefix};
use crate::support::service::{Service, Setup};

/// A replica on this server, under this prefix.
fn replica(server: &RedisServer, prefix: &str) -> Setup {
    Setup::new()
        .env("REDIS_URL", &server.url())
        .env("JUSTONCE_REDIS_PREFIX", prefix)
}

fn task(n: u32) -> serde_json::Value {
    json!({"type": "echo", "params": {"n": n}})
}

async fn ready(client: &Client) {
    until("readyz", async || {
        let reply = client.get("/readyz").send().await;
        (reply.status == 200).then_some(())
    })
    .await;
}

async fn unready(client: &Client) {
    until("readyz to turn", async || {
        let reply = client.get("/readyz").send().await;
        (reply.status == 503).then_some(())
    })
    .await;
}

/// Runs `justonce doctor` with the settings of a replica.
async fn doctor(setup: &Setup, arguments: &[&str]) -> (bool, String) {
    let mut command = setup.command();
    command.arg("doctor").args(arguments);
    let output = within("the doctor", command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), text)
}

/// One trouble on a live server: refused while it lasts, and everything as before when it is over.
async fn trouble(server: &RedisServer, begin: impl FnOnce(), end: impl FnOnce()) {
    let service = replica(server, &prefix()).start().await;
    let client = service.client();
    client.submit(&task(1), "before").await.expect(202);
    begin();
    let refused = until("a refusal", async || {
        let reply = client.submit(&task(2), "during").await;
        (reply.status == 503).then_some(reply)
    })
    .await;
    let problem = refused.problem(503, "store-unavailable");
    assert_eq!(problem["retryable"], true, "{problem}");
    assert_eq!(problem["same_key"], true, "{problem}");
    assert!(refused.header("retry-after").is_some());
    unready(&client).await;
    end();
    ready(&client).await;
    let during = until("an answer", async || {
        let reply = client.submit(&task(2), "during").await;
        [200, 202].contains(&reply.status).then(|| reply.id())
    })
    .await;
    let again = client.submit(&task(2), "during").await;
    assert_eq!(again.id(), during);
    client.ended(&during).await;
    let all = client.list("limit=10").await;
    assert_eq!(all.len(), 2, "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_paused_is_not_waited_for() {
    let server = RedisServer::start(&[]);
    trouble(&server, || server.pause(), || server.resume()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_memory_refuses_before_anything_is_written() {
    let server = RedisServer::start(&[]);
    let full = || drop(server.command(&["CONFIG", "SET", "maxmemory", "1"]));
    let room = || drop(server.command(&["CONFIG", "SET", "maxmemory", "0"]));
    trouble(&server, full, room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_became_a_replica_refuses() {
    let server = RedisServer::start(&[]);
    let demoted = || drop(server.command(&["REPLICAOF", "127.0.0.1", "1"]));
    let promoted = || drop(server.command(&["REPLICAOF", "NO", "ONE"]));
    trouble(&server, demoted, promoted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_busy_with_a_script_refuses() {
    let server = RedisServer::start(&["--busy-reply-threshold", "50"]);
    let mut endless = None;
    let port = server.port.to_string();
    let busy = || {
        let script = ["-p", &port, "EVAL", "while true do end", "0"];
        endless = Some(Command::new("redis-cli").args(script).spawn().unwrap());
    };
    let free = || drop(server.command(&["SCRIPT", "KILL"]));
    trouble(&server, busy, free).await;
    within("redis-cli", async { endless.unwrap().wait() })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_whose_policy_evicts_is_not_used_until_it_is_set_right() {
    let server = RedisServer::start(&[]);
    let service = replica(&server, &prefix()).start().await;
    let client = service.client();
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    unready(&client).await;
    let checks = client.get("/readyz").send().await.json()["checks"].clone();
    let eviction = json!({"status": "fail", "value": "allkeys-lru", "assumed": false});
    assert_eq!(checks["eviction_policy"], eviction, "{checks}");
    let output = checks["store"]["output"].as_str().unwrap();
    assert!(output.contains("allkeys-lru"), "{checks}");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    ready(&client).await;
    let checks = client.get("/readyz").send().await.json()["checks"].clone();
    let eviction = json!({"status": "pass", "value": "noeviction", "assumed": false});
    assert_eq!(checks["eviction_policy"], eviction, "{checks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_shows_what_the_operator_vouches_for() {
    // As managed servers are: their settings are nobody's business.
    let server = RedisServer::start(&["--rename-command", "CONFIG", ""]);
    let setup = replica(&server, &prefix());
    let service = setup
        .env("JUSTONCE_REDIS_ASSUME", "noeviction,fsync")
        .start()
        .await;
    let client = service.client();
    let checks = client.get("/readyz").send().await.json()["checks"].clone();
    let eviction = json!({"status": "pass", "value": "noeviction", "assumed": true});
    assert_eq!(checks["eviction_policy"], eviction, "{checks}");
    assert_eq!(checks["store"]["durability"], "fsync", "{checks}");
    assert_eq!(checks["store"]["assumed"], true, "{checks}");
    let reply = client.submit(&task(1), "k").await;
    assert_eq!(reply.header("durability"), Some("fsync"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_redis_is_noticed_by_every_replica_and_accepted_by_an_operator() {
    let server = RedisServer::start(&[]);
    let prefix = prefix();
    let one = replica(&server, &prefix).start().await;
    let other = replica(&server, &prefix).start().await;
    let id = one.client().submit(&task(1), "k").await.expect(202).id();
    one.client().ended(&id).await;
    server.command(&["FLUSHALL"]);
    // The very next submission on each is refused, the repeat of what was acknowledged as well.
    for client in [one.client(), other.client()] {
        client
            .submit(&task(1), "k")
            .await
            .problem(503, "state-lost");
        let problem = client
            .submit(&task(2), "new")
            .await
            .problem(503, "state-lost");
        assert_eq!(problem["same_key"], true, "{problem}");
        client
            .get(&format!("/v1/tasks/{id}"))
            .send()
            .await
            .problem(503, "state-lost");
        unready(&client).await;
    }
    let (is_well, text) = until("both reports", async || {
        let (is_well, text) = doctor(one.setup(), &[]).await;
        (text.matches(", ").count() >= 1 && text.contains("accept")).then_some((is_well, text))
    })
    .await;
    assert!(!is_well, "{text}");
    assert_eq!(server.command(&["DBSIZE"]), "1", "only the reports");
    let (done, text) = doctor(other.setup(), &["--accept-state-loss"]).await;
    assert!(done, "{text}");
    for client in [one.client(), other.client()] {
        ready(&client).await;
    }
    let again = one.client().submit(&task(1), "k").await.expect(202).id();
    assert_ne!(again, id);
    let answer = other.client().submit(&task(1), "k").await;
    assert_eq!(answer.id(), again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_set_back_to_an_older_snapshot_is_noticed_by_whom_it_answered() {
    let server = RedisServer::start(&["--enable-debug-command", "local"]);
    let service = replica(&server, &prefix())
        .env("JUSTONCE_WORKERS", "0")
        .start()
        .await;
    let client = service.client();
    let old = client.submit(&task(1), "old").await.expect(202).id();
    server.command(&["SAVE"]);
    let lost = client.submit(&task(2), "lost").await.expect(202).id();
    server.command(&["DEBUG", "RELOAD", "NOSAVE"]);
    client
        .submit(&task(3), "new")
        .await
        .problem(503, "state-lost");
    let (done, text) = until("the report", async || {
        let (done, text) = doctor(service.setup(), &["--accept-state-loss"]).await;
        text.contains("Accepted").then_some((done, text))
    })
    .await;
    assert!(done, "{text}");
    ready(&client).await;
    let known = client.submit(&task(1), "old").await.expect(202);
    assert_eq!(known.id(), old);
    let anew = client.submit(&task(2), "lost").await.expect(202);
    assert_ne!(anew.id(), lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_remembers_over_its_restart_what_it_was_told() {
    let server = RedisServer::start(&[]);
    let prefix = prefix();
    let service = replica(&server, &prefix).start().await;
    service.client().submit(&task(1), "k").await.expect(202);
    service.terminate();
    let (_, setup) = service.ended().await;
    server.command(&["FLUSHALL"]);
    let service = Service::launch(setup).await;
    service
        .client()
        .submit(&task(1), "k")
        .await
        .problem(503, "state-lost");
    // One that knows nothing begins anew, and its beginning is nothing that the other accepts.
    let stranger = replica(&server, &prefix).start().await;
    stranger.client().submit(&task(5), "k5").await.expect(202);
    unready(&service.client()).await;
    until("the report", async || {
        let (_, text) = doctor(service.setup(), &["--accept-state-loss"]).await;
        text.contains("Accepted").then_some(())
    })
    .await;
    ready(&service.client()).await;
    let id = service.client().submit(&task(5), "k5").await.id();
    assert_eq!(stranger.client().submit(&task(5), "k5").await.id(), id);
}
