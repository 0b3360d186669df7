//! Records that somebody has broken by hand: they are said, and keep nobody else waiting.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::deadline::until;
use crate::support::redis::{RedisServer, prefix};
use crate::support::service::Setup;

const NEIGHBOURS: usize = 5;
const BROKEN: usize = 120;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_breaks_while_it_is_leased_keeps_no_other_from_its_rescue() {
    let server = RedisServer::start(&[]);
    let prefix = prefix();
    let setup = Setup::new()
        .env("REDIS_URL", &server.url())
        .env("JUSTONCE_REDIS_PREFIX", &prefix)
        .config("[task_types.outside]\nrunner = { external = true }\nlease_seconds = 1\n");
    let service = setup.start().await;
    let client = service.client();
    let lease = async |max: usize| {
        let asked = json!({"types": ["outside"], "max": max, "worker": "silent"});
        let reply = client.post("/v1/leases").json(&asked).send().await;
        let leases = reply.expect(200).json()["leases"].clone();
        let ids = leases.as_array().unwrap().iter();
        let ids = ids.map(|lease| lease["task"]["id"].as_str().unwrap().to_owned());
        ids.collect::<BTreeSet<_>>()
    };
    let mut tasks = Vec::new();
    for n in 0..=NEIGHBOURS {
        let task = json!({"type": "outside", "params": {"n": n}});
        tasks.push(client.submit(&task, &format!("k{n}")).await.id());
    }
    // Its lease is over before all others.
    let broken = tasks.remove(0);
    assert_eq!(lease(1).await, BTreeSet::from([broken.clone()]));
    let key = server.command(&["--scan", "--pattern", &format!("{prefix}:*:task:{broken}")]);
    let cut = "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, 30))";
    server.command(&["EVAL", cut, "1", &key]);
    let others: BTreeSet<_> = tasks.into_iter().collect();
    assert_eq!(lease(NEIGHBOURS).await, others);

    let due = format!(
        "{}due",
        key.strip_suffix(&format!("task:{broken}")).unwrap()
    );
    until("the others to be leased again", async || {
        let again = lease(NEIGHBOURS).await;
        assert!(!again.contains(&broken));
        rescued(&client, &others).await.then_some(())
    })
    .await;
    let score = server.command(&["ZSCORE", &due, &broken]);
    assert_eq!(score, "", "it is looked at again and again");
    let path = format!("/v1/tasks/{broken}");
    client
        .get(&path)
        .send()
        .await
        .problem(503, "store-unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_without_a_record_has_held_is_free_for_others() {
    let server = RedisServer::start(&[]);
    let prefix = prefix();
    let cut = "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, 30))";
    let gone = "redis.call('DEL', KEYS[1])";
    let keyed = "concurrency_key = \"/k\"";
    let per_user = "concurrency_per_user = 1";
    let cases = [
        ("cut-keyed", cut, keyed),
        ("gone-keyed", gone, keyed),
        ("cut-per-user", cut, per_user),
        ("gone-per-user", gone, per_user),
    ];
    let config = cases.map(|(name, _, bound)| {
        format!("[task_types.{name}]\nrunner = {{ external = true }}\nlease_seconds = 1\n{bound}\n")
    });
    let setup = Setup::new()
        .env("REDIS_URL", &server.url())
        .env("JUSTONCE_REDIS_PREFIX", &prefix)
        .config(&config.concat());
    let service = setup.start().await;
    let client = service.client();
    for (name, damage, bound) in cases {
        let submit = async |n: usize| {
            let task = json!({"type": name, "params": {"k": 1, "n": n}});
            client.submit(&task, &format!("{name}-{n}")).await.id()
        };
        let lease = async || {
            let asked = json!({"types": [name], "max": 9, "worker": "silent"});
            let reply = client.post("/v1/leases").json(&asked).send().await;
            let leases = reply.expect(200).json()["leases"].clone();
            let ids = leases.as_array().unwrap().iter();
            let ids = ids.map(|lease| lease["task"]["id"].as_str().unwrap().to_owned());
            ids.collect::<Vec<_>>()
        };
        let (held, waiting) = (submit(0).await, submit(1).await);
        assert_eq!(lease().await, std::slice::from_ref(&held));
        assert!(lease().await.is_empty());
        let pattern = format!("{prefix}:*:task:{held}");
        let key = server.command(&["--scan", "--pattern", &pattern]);
        server.command(&["EVAL", damage, "1", &key]);
        let root = key.strip_suffix(&format!("task:{held}")).unwrap();
        until("the lease to be over", async || {
            let score = server.command(&["ZSCORE", &format!("{root}due"), &held]);
            score.is_empty().then_some(())
        })
        .await;
        if bound == per_user {
            // The minute is over after which the user is looked at again.
            let script = "local now = redis.call('TIME')[1] * 1000 \
                          local user = redis.call('ZRANGE', KEYS[1], 0, 0)[1] \
                          redis.call('ZADD', KEYS[1], string.format('%.0f', 6000000000000000 + now), user) \
                          redis.call('ZADD', KEYS[2], now, ARGV[1])";
            let (turns, waits) = (format!("{root}turns:{name}"), format!("{root}waits"));
            server.command(&["EVAL", script, "2", &turns, &waits, name]);
        }
        until("the one that waits to be leased", async || {
            (lease().await == std::slice::from_ref(&waiting)).then_some(())
        })
        .await;
    }
}

/// Whether all of them have been leased a second time.
async fn rescued(client: &Client, tasks: &BTreeSet<String>) -> bool {
    for id in tasks {
        let task = client.get(&format!("/v1/tasks/{id}")).send().await;
        if task.expect(200).json()["attempt"].as_u64() < Some(2) {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_cannot_be_read_keeps_no_other_from_firing() {
    let server = RedisServer::start(&[]);
    let prefix = prefix();
    let setup = Setup::new()
        .env("REDIS_URL", &server.url())
        .env("JUSTONCE_REDIS_PREFIX", &prefix);
    let service = setup.start().await;
    let client = service.client();
    let put = async |name: &str, schedule: Value| {
        let path = format!("/v1/schedules/{name}");
        client.put(&path).json(&schedule).send().await.status
    };
    // More than one look takes up, all due at once, and before any that is well.
    let yearly = || json!({"cron": "0 0 1 1 *", "type": "echo"});
    let root = {
        assert_eq!(put("b0", yearly()).await, 201);
        let pattern = format!("{prefix}:*:schedule:anonymous,b0");
        let key = server.command(&["--scan", "--pattern", &pattern]);
        key.strip_suffix("schedule:anonymous,b0")
            .unwrap()
            .to_owned()
    };
    for n in 1..BROKEN {
        assert_eq!(put(&format!("b{n}"), yearly()).await, 201);
    }
    let break_all = "for n = 0, tonumber(ARGV[1]) - 1 do\n\
           local member = 'anonymous,b' .. n\n\
           local key = KEYS[1] .. 'schedule:' .. member\n\
           if n % 4 == 0 then redis.call('SET', key, 'x')\n\
           elseif n % 4 == 1 then redis.call('HSET', key, 'plan', '{')\n\
           elseif n % 4 == 2 then redis.call('DEL', key)\n\
           else redis.call('HDEL', key, 'type', 'created_at') end\n\
           redis.call('ZADD', KEYS[1] .. 'schedules-due:echo', 5, member)\n\
         end\n\
         redis.call('ZADD', KEYS[1] .. 'schedules-due:echo', 4, 'no user and no name')\n\
         redis.call('SET', KEYS[1] .. 'schedules-version', 'x')";
    server.command(&["EVAL", break_all, "1", &root, &BROKEN.to_string()]);
    let often = json!({"cron": "* * * * * *", "type": "echo"});
    assert_eq!(put("often", often).await, 201);
    until("firings beside them", async || {
        let tasks = client.list("tag=schedule:often").await;
        (tasks.len() >= 2).then_some(())
    })
    .await;

    // The list shows the others; each can be put anew, or deleted.
    let list = client.get("/v1/schedules").send().await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    for n in 0..4 {
        let path = format!("/v1/schedules/b{n}");
        let status = client.get(&path).send().await.status;
        assert_eq!(status, if n == 2 { 404 } else { 503 }, "{path}");
        assert!(matches!(put(&format!("b{n}"), yearly()).await, 200 | 201));
        assert_eq!(client.get(&path).send().await.status, 200, "{path}");
        let path = format!("/v1/schedules/b{}", n + 4);
        assert_eq!(client.delete(&path).send().await.status, 204, "{path}");
        assert_eq!(client.get(&path).send().await.status, 404, "{path}");
    }
    let list = client.get("/v1/schedules").send().await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 5, "{list}");
}
