//! How many requests a user may send, and how many unfinished tasks a user may have.

use serde_json::{Value, json};

use crate::support::client::Reply;
use crate::support::deadline::{until, within};
use crate::support::wire::Wire;
use crate::support::{Client, Service, Setup};

const BOOTSTRAP: &str = "jo_bootstrap0001_0123456789abcdef0123456789abcdef";
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

fn limited(requests: u32, tasks: u32) -> Setup {
    Setup::new()
        .env("JUSTONCE_REQUESTS_PER_MINUTE_MAX", &requests.to_string())
        .env("JUSTONCE_UNFINISHED_TASKS_MAX", &tasks.to_string())
}

fn later(n: u32) -> Value {
    json!({"type": "echo", "params": {"n": n}, "delay_seconds": 600})
}

/// What the answer says is left in the window, and for how many seconds that holds.
fn left(reply: &Reply) -> (u64, u64) {
    let text = reply.header("ratelimit").expect("no RateLimit");
    let numbers = text.strip_prefix("\"requests\";r=").unwrap();
    let (left, seconds) = numbers.split_once(";t=").unwrap();
    (left.parse().unwrap(), seconds.parse().unwrap())
}

/// Checks the refusal; gives its Retry-After.
fn refused(reply: &Reply, policy: &str) -> u64 {
    let problem = reply.problem(429, "quota-exceeded");
    assert_eq!(problem["type"], QUOTA_EXCEEDED);
    assert_eq!(problem["violated-policies"], json!([policy]));
    assert_eq!(
        (&problem["retryable"], &problem["same_key"]),
        (&json!(true), &json!(false))
    );
    reply.header("retry-after").unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_more_is_refused_before_it_is_read() {
    let service = limited(5, 0).start().await;
    let ann = service.client().user("ann");
    let first = ann.submit(&json!({"type": "echo"}), "k").await;
    assert_eq!(
        first.header("ratelimit-policy"),
        Some("\"requests\";q=5;w=60")
    );
    let (rest, seconds) = left(&first);
    assert!(rest == 4 && (1..=60).contains(&seconds), "{rest} {seconds}");
    // Refusals of all kinds count and say so.
    let unknown = ann.get("/v1/tasks/none").send().await;
    unknown.problem(404, "not-found");
    assert_eq!(left(&unknown).0, 3);
    let bad = ann.post("/v1/tasks").json_text("{").send().await;
    bad.problem(400, "invalid-json");
    assert_eq!(left(&bad).0, 2);
    let limits = ann.get("/v1/limits").send().await;
    assert_eq!(left(&limits).0, 1);
    let limits = limits.json();
    assert_eq!(limits["requests_per_minute"], json!({"max": 5, "used": 4}));
    assert_eq!(limits["unfinished_tasks"]["max"], Value::Null);
    assert_eq!(left(&ann.get("/stats").send().await).0, 0);

    let over = ann.submit(&json!({"type": "echo"}), "k").await;
    let retry_after = refused(&over, "requests");
    assert_eq!(left(&over), (0, retry_after));
    assert!((1..=60).contains(&retry_after));
    // The length is a promise that nobody keeps: the answer comes before the body.
    let head = "PUT /v1/files?filename=a.bin HTTP/1.1\r\nhost: localhost\r\nx-user-id: ann\r\n\
                content-length: 9000000000\r\n\r\n";
    let mut wire = Wire::connect(service.address).await;
    wire.send(head).await;
    let answer = within("the answer", wire.head()).await.unwrap();
    assert_eq!(answer.status, 429);
    assert!(answer.header("ratelimit").unwrap().contains(";r=0;"));

    // Neither others nor what belongs to the service itself is touched.
    let bob = service.client().user("bob").echo(json!({"n": 1})).await;
    assert_eq!(bob["state"], "succeeded");
    let health = ann.get("/health").send().await.expect(200);
    assert_eq!(health.header("ratelimit"), None);
    assert_eq!(health.json()["limits"]["rate_limit_per_minute"], 5);
    for path in ["/readyz", "/metrics", "/openapi.json", "/v1/workers"] {
        assert_eq!(
            ann.get(path).send().await.expect(200).header("ratelimit"),
            None
        );
    }
    let lease = json!({"types": ["echo"], "wait": 0});
    let leases = ann.post("/v1/leases").json(&lease).send().await;
    assert_ne!(leases.status, 429);
}

#[tokio::test]
async fn a_user_has_so_many_unfinished_tasks_however_they_are_submitted() {
    let service = limited(0, 2).start().await;
    let ann = service.client().user("ann");
    let first = ann.submit(&later(1), "a").await;
    assert_eq!(first.header("ratelimit"), None);
    let first = first.id();
    let second = ann.submit(&later(2), "b").await.id();
    let over = ann.submit(&later(3), "c").await;
    assert_eq!(refused(&over, "unfinished-tasks"), 1);
    assert_eq!(over.header("ratelimit"), Some("\"unfinished-tasks\";r=0"));
    assert_eq!(
        over.header("ratelimit-policy"),
        Some("\"unfinished-tasks\";q=2")
    );
    let limits = ann.get("/v1/limits").send().await.expect(200).json();
    assert_eq!(limits["unfinished_tasks"], json!({"max": 2, "used": 2}));

    // Duplicates cost nothing.
    assert_eq!(ann.submit(&later(1), "a").await.id(), first);
    assert_eq!(ann.submit(&later(2), "z").await.id(), second);
    // A file is refused with its task, and kept by nobody.
    let file = ann.put("/v1/files?type=echo&filename=a.csv").body("a,b\n");
    refused(&file.send().await, "unfinished-tasks");
    let items = json!([later(1), later(4), {"type": "nothing"}]);
    let batch = ann.post("/v1/tasks/batch").json(&items).send().await;
    let items = batch.expect(200).json()["items"].clone();
    let statuses: Vec<_> = (0..3).map(|at| items[at]["status"].clone()).collect();
    assert_eq!(statuses, [json!(202), json!(429), json!(422)]);
    assert_eq!(items[1]["problem"]["type"], QUOTA_EXCEEDED);
    service
        .client()
        .user("bob")
        .submit(&later(1), "a")
        .await
        .id();

    let cancelled = ann.post(&format!("/v1/tasks/{first}/cancel")).send().await;
    cancelled.expect(200);
    // The key of what was refused is free.
    ann.submit(&later(3), "c").await.id();
    refused(&ann.submit(&later(5), "d").await, "unfinished-tasks");
}

#[tokio::test]
async fn a_firing_waits_until_its_user_has_room() {
    let service = limited(0, 1).start().await;
    let ann = service.client().user("ann");
    let held = ann.submit(&later(1), "a").await.id();
    let plan = json!({"cron": "* * * * * *", "type": "echo", "missed": "run_all"});
    ann.put("/v1/schedules/often")
        .json(&plan)
        .send()
        .await
        .expect(201);
    until("the schedule to be due", async || {
        let schedule = ann.get("/v1/schedules/often").send().await.json();
        let next = schedule["next_fire_at"]
            .as_str()?
            .parse::<jiff::Timestamp>()
            .ok()?;
        (next + jiff::SignedDuration::from_secs(1) < jiff::Timestamp::now()).then_some(())
    })
    .await;
    assert!(ann.list("tag=schedule:often").await.is_empty());
    let done = ann.post(&format!("/v1/tasks/{held}/cancel")).send().await;
    done.expect(200);
    until("a firing", async || {
        let fired = ann.list("tag=schedule:often&state=succeeded").await;
        (!fired.is_empty()).then_some(())
    })
    .await;
}

async fn client_of(service: &Service, user: &str, scopes: &[&str]) -> Client {
    let admin = service.client().bearer(BOOTSTRAP);
    let wanted = json!({"user": user, "scopes": scopes});
    let made = admin.post("/v1/keys").json(&wanted).send().await;
    let made = made.expect(201).json();
    service.client().bearer(made["key"].as_str().unwrap())
}

#[tokio::test]
async fn with_authentication_there_are_limits_that_count_for_the_user_who_is_named() {
    let config = "[limits]\nunfinished_tasks_max = 3\n\
                  [users.big]\nrequests_per_minute_max = 0\nunfinished_tasks_max = 4\n\
                  [users.small]\nrequests_per_minute_max = 2\n";
    let service = Setup::new()
        .env("JUSTONCE_AUTH", "keys")
        .env("JUSTONCE_BOOTSTRAP_KEY", BOOTSTRAP)
        .config(config)
        .start()
        .await;
    let scopes = ["submit", "read", "act-as"];
    let front = client_of(&service, "front", &scopes).await;
    let shown = async |client: &Client| client.get("/v1/limits").send().await.json();
    let usual = shown(&front).await;
    assert_eq!(usual["requests_per_minute"], json!({"max": 200, "used": 1}));
    assert_eq!(usual["unfinished_tasks"], json!({"max": 3, "used": 0}));
    let big = front.user("big");
    let limits = big.get("/v1/limits").send().await;
    assert_eq!(limits.header("ratelimit"), None);
    assert_eq!(
        limits.json()["unfinished_tasks"],
        json!({"max": 4, "used": 0})
    );
    for n in 0..4 {
        big.submit(&later(n), &format!("k{n}")).await.id();
    }
    refused(&big.submit(&later(4), "k4").await, "unfinished-tasks");
    let small = front.user("small");
    small.submit(&later(1), "k").await.id();
    assert_eq!(
        shown(&small).await["unfinished_tasks"],
        json!({"max": 3, "used": 1})
    );
    refused(&small.submit(&later(1), "k").await, "requests");
    // The key's own user has spent nothing on them; a key of the same user has the same quota.
    assert_eq!(left(&front.get("/v1/limits").send().await).0, 198);
    let same = client_of(&service, "small", &["read"]).await;
    refused(&same.get("/v1/limits").send().await, "requests");
    // Who is not let in spends nothing.
    let other = client_of(&service, "other", &["read"]).await;
    other.submit(&later(1), "k").await.problem(403, "forbidden");
    assert_eq!(left(&other.get("/v1/limits").send().await).0, 199);
}

#[tokio::test]
async fn replicas_count_the_same_requests() {
    if std::env::var("TEST_STORE").is_err() {
        // There is no second process over the embedded store.
        return;
    }
    let setup = limited(6, 3);
    let one = setup.clone().start().await;
    let data = setup.folder().join("other");
    let two = setup.env("JUSTONCE_DATA", data.to_str().unwrap());
    let two = two.start().await;
    let clients = [one.client().user("ann"), two.client().user("ann")];
    let mut statuses = Vec::new();
    for n in 0..8_u32 {
        let client = &clients[n as usize % 2];
        statuses.push(client.submit(&later(n), &format!("k{n}")).await.status);
    }
    assert_eq!(statuses, [202, 202, 202, 429, 429, 429, 429, 429]);
    let over = clients[0].get("/v1/limits").send().await;
    refused(&over, "requests");
}
