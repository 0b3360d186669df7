//! Just once, counted outside of the service: by lines that a program writes to a file.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Client, Reply, Setup, World};

const CLIENTS: usize = 64;

fn recording(world: &World) -> Setup {
    let runner = world.recorder("record");
    Setup::new().config(&format!("[task_types.record]\nrunner = {{ {runner} }}\n"))
}

/// Sends all submissions at one moment, each on a connection of its own.
async fn at_once(
    service: &crate::support::Service,
    request: impl AsyncFn(Client, usize) -> Reply,
) -> Vec<Reply> {
    let clients: Vec<_> = (0..CLIENTS).map(|_| service.client()).collect();
    // Connections are open before the first submission leaves.
    for client in &clients {
        client.get("/livez").send().await.expect(200);
    }
    let request = &request;
    let sent = clients.into_iter().enumerate();
    futures_util::future::join_all(sent.map(|(n, client)| request(client, n))).await
}

fn ids(replies: &[Reply]) -> BTreeSet<String> {
    replies.iter().map(Reply::id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_identical_submissions_at_once_run_once() {
    let world = World::new();
    let service = recording(&world).start().await;
    let task = json!({"type": "record", "params": {"n": 1}});
    let replies = at_once(&service, async |client: Client, _| {
        client.submit_keyless(&task).await
    })
    .await;
    let ids = ids(&replies);
    assert_eq!(ids.len(), 1, "{ids:?}");
    let new = replies.iter().filter(|r| r.json()["deduplicated"] == false);
    assert_eq!(new.count(), 1);
    let ended = service.client().ended(ids.first().unwrap()).await;
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["duplicates"], CLIENTS - 1);
    assert_eq!(world.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_submissions_with_one_key_run_once() {
    let world = World::new();
    let service = recording(&world).start().await;
    let task = json!({"type": "record", "params": {"n": 2}, "dedup": {"mode": "none"}});
    let replies = at_once(&service, async |client: Client, _| {
        client.submit(&task, "the-key").await
    })
    .await;
    let ids = ids(&replies);
    assert_eq!(ids.len(), 1, "{ids:?}");
    let replayed = replies
        .iter()
        .filter(|r| r.header("idempotent-replayed").is_some());
    assert_eq!(replayed.count(), CLIENTS - 1);
    service.client().ended(ids.first().unwrap()).await;
    assert_eq!(world.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_contents_with_one_key_run_one_of_them() {
    let world = World::new();
    let service = recording(&world).start().await;
    let replies = at_once(&service, async |client: Client, n| {
        let task = json!({"type": "record", "params": {"n": n}});
        client.submit(&task, "the-key").await
    })
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|r| r.status == 202);
    assert_eq!(accepted.len(), 1);
    for reply in &refused {
        reply.problem(422, "idempotency-key-reused");
    }
    service.client().ended(&accepted[0].id()).await;
    assert_eq!(world.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_content_under_many_keys_runs_once_and_every_key_names_it() {
    let world = World::new();
    let service = recording(&world).start().await;
    let task = json!({"type": "record", "params": {"n": 3}});
    let replies = at_once(&service, async |client: Client, n| {
        client.submit(&task, &format!("key-{n}")).await
    })
    .await;
    let ids = ids(&replies);
    assert_eq!(ids.len(), 1, "{ids:?}");
    let client = service.client();
    client.ended(ids.first().unwrap()).await;
    assert_eq!(world.runs().len(), 1);
    for n in 0..CLIENTS {
        let replay = client.submit(&task, &format!("key-{n}")).await.expect(200);
        assert_eq!(Some(&replay.id()), ids.first());
        assert_eq!(replay.json()["matched_by"], "idempotency_key", "key-{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn distinct_submissions_all_run() {
    let world = World::new();
    let service = recording(&world).start().await;
    let replies = at_once(&service, async |client: Client, n| {
        let task = json!({"type": "record", "params": {"n": n}});
        client.submit(&task, &format!("key-{n}")).await.expect(202)
    })
    .await;
    let ids = ids(&replies);
    assert_eq!(ids.len(), CLIENTS);
    let client = service.client();
    for id in &ids {
        assert_eq!(client.ended(id).await["state"], "succeeded");
    }
    let ran: BTreeSet<_> = world
        .runs()
        .iter()
        .map(|run| run["id"].to_string())
        .collect();
    assert_eq!(world.runs().len(), CLIENTS);
    assert_eq!(ran.len(), CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_identical_uploads_at_once_run_once_and_are_kept_once() {
    let world = World::new();
    let service = recording(&world).start().await;
    let bytes = vec![7u8; 300_000];
    let replies = at_once(&service, async |client: Client, _| {
        let request = client.post("/v1/files?type=record").body(bytes.clone());
        request
            .header("content-type", "application/octet-stream")
            .send()
            .await
    })
    .await;
    let ids = ids(&replies);
    assert_eq!(ids.len(), 1, "{ids:?}");
    service.client().ended(ids.first().unwrap()).await;
    assert_eq!(world.runs().len(), 1);
    crate::support::deadline::until("copies that nobody names to go", async || {
        (service.stored_files().len() == 1).then_some(())
    })
    .await;
}
