//! Sentinels put another server in the place of one that is gone, and the store follows by itself.

use justonce::store::redis::RedisStore;
use serde_json::json;

use crate::support::deadline::until;
use crate::support::redis_sentinels::Sentinels;
use crate::support::replicas::{Replicas, task};
use crate::support::store::{LONG, draft, redis_at, redis_options};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_followed_by_the_one_that_takes_its_place() {
    let set = Sentinels::start(&[], "");
    set.ready(&[], &[]).await;
    let replicas = Replicas::over(&format!("redis+sentinel://{}", set.place())).await;
    let before = draft(json!({"n": 1})).key("before");
    let known = replicas.one.new_task(&before).await;
    set.servers[0].is_copied_to(2, "mark").await;
    set.servers[0].kill();
    replicas.know(&before, &known.id).await;
    replicas.hear_each_other().await;
    let leases = replicas.one.lease_many(9, LONG).await;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].task.id, known.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_primary_is_given_up_and_may_come_back_as_a_replica() {
    let set = Sentinels::start(&[], "");
    set.ready(&[], &[]).await;
    let replicas = Replicas::over(&format!("redis+sentinel://{}", set.place())).await;
    let before = draft(json!({"n": 1})).key("before");
    let known = replicas.one.new_task(&before).await;
    set.servers[0].is_copied_to(2, "mark").await;
    set.servers[0].pause();
    replicas.know(&before, &known.id).await;
    let between = draft(json!({"n": 2})).key("between");
    let later = task(replicas.one.admit_soon(&between).await);
    replicas.hear_each_other().await;
    set.servers[0].resume();
    until("the old primary as a replica", async || {
        replicas.know(&before, &known.id).await;
        let shown = set.servers[0].command(&["INFO", "replication"]);
        let follows = shown.contains("role:slave") && shown.contains("master_link_status:up");
        follows.then_some(())
    })
    .await;
    replicas.know(&between, &later.id).await;
    replicas.hear_each_other().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_sentinels_have_logins_of_their_own() {
    let of_servers = ["--requirepass", "server", "--masterauth", "server"];
    let of_sentinels = "requirepass sentinel\n\
                        sentinel sentinel-pass sentinel\n\
                        sentinel auth-pass main server";
    let set = Sentinels::start(&of_servers, of_sentinels);
    set.ready(&["-a", "server"], &["-a", "sentinel"]).await;
    let url = |password: &str| {
        let place = set.place();
        format!("redis+sentinel://:server@{place}/2?sentinel_password={password}")
    };
    let subject = redis_at(&url("sentinel")).await;
    subject.new_task(&draft(json!({}))).await;
    for wrong in ["server", ""] {
        let refused = RedisStore::open(redis_options(&url(wrong))).await;
        assert!(refused.is_err());
    }
}
