//! Records that somebody has broken by hand: they are said, and keep nobody else waiting.

use serde_json::json;

use crate::support::deadline::until;
use crate::support::redis::{RedisServer, prefix};
use crate::support::service::Setup;

const NEIGHBOURS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_keeps_nobody_waiting_behind_it() {
    let server = RedisServer::start(&[]);
    let prefix = prefix();
    let setup = Setup::new()
        .env("REDIS_URL", &server.url())
        .env("JUSTONCE_REDIS_PREFIX", &prefix)
        .config("[task_types.outside]\nrunner = { external = true }\nlease_seconds = 30\n");
    let service = setup.clone().start().await;
    let client = service.client();
    let submit = async |n: usize| {
        let task = json!({"type": "outside", "params": {"n": n}});
        client.submit(&task, &format!("k{n}")).await.id()
    };
    let broken = submit(0).await;
    let mut others = Vec::new();
    for n in 1..=NEIGHBOURS {
        others.push(submit(n).await);
    }
    let pattern = format!("{prefix}:*:task:{broken}");
    let key = server.command(&["--scan", "--pattern", &pattern]);
    let cut = |key: &str| {
        let script = "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, 30))";
        server.command(&["EVAL", script, "1", key])
    };
    cut(&key);

    let asked = json!({"types": ["outside"], "max": 3, "worker": "w"});
    let lease = async || {
        let reply = client.post("/v1/leases").json(&asked).send().await;
        reply.expect(200).json()["leases"]
            .as_array()
            .unwrap()
            .clone()
    };
    let mut leases = lease().await;
    assert_eq!(leases.len(), 3, "{leases:?}");
    leases.extend(lease().await);
    let leased: Vec<_> = leases
        .iter()
        .map(|lease| lease["task"]["id"].clone())
        .collect();
    assert_eq!(leased, others);

    // One more breaks while it runs. The others end, and are counted once.
    let late = &leases[2];
    let pattern = format!("{prefix}:*:task:{}", late["task"]["id"].as_str().unwrap());
    cut(&server.command(&["--scan", "--pattern", &pattern]));
    let completions = leases.iter().map(async |lease| {
        let path = format!(
            "/v1/leases/{}/complete",
            lease["lease_id"].as_str().unwrap()
        );
        let ended = json!({"fencing_token": lease["fencing_token"], "result": 1});
        client.post(&path).json(&ended).send().await.status
    });
    let statuses = futures_util::future::join_all(completions).await;
    assert_eq!(statuses, [200, 200, 503, 200, 200]);
    until("the numbers", async || {
        let stats = client.get("/stats").send().await.json();
        (stats["completed"] == 4).then_some(())
    })
    .await;
}
