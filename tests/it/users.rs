//! API keys: who may do what, and that nobody sees another's things.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::{Client, Service, Setup};

const BOOTSTRAP: &str = "jo_bootstrap0001_0123456789abcdef0123456789abcdef";

async fn with_keys() -> Service {
    Setup::new()
        .env("JUSTONCE_AUTH", "keys")
        .env("JUSTONCE_BOOTSTRAP_KEY", BOOTSTRAP)
        // These ask as often as they like.
        .env("JUSTONCE_REQUESTS_PER_MINUTE_MAX", "0")
        .start()
        .await
}

fn admin(service: &Service) -> Client {
    service.client().bearer(BOOTSTRAP)
}

/// A client with a key of its own, and the key's id.
async fn client_of(service: &Service, user: &str, scopes: &[&str]) -> (Client, String) {
    let wanted = json!({"user": user, "scopes": scopes});
    let made = admin(service)
        .post("/v1/keys")
        .json(&wanted)
        .send()
        .await
        .expect(201)
        .json();
    let secret = made["key"].as_str().unwrap();
    (
        service.client().bearer(secret),
        made["id"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_told() {
    let service = with_keys().await;
    let nobody = service.client();
    let bad = [
        nobody.clone(),
        nobody.bearer("jo_bootstrap0001_ffffffffffffffffffffffffffffffff"),
        nobody.bearer("jo_nobody000000_0123456789abcdef0123456789abcdef"),
        nobody.bearer("x"),
        nobody.user("ann"),
    ];
    for client in &bad {
        for (method, path) in [
            (Method::GET, "/v1/tasks"),
            (Method::POST, "/v1/tasks"),
            (Method::POST, "/v1/files"),
            (Method::GET, "/stats"),
            (Method::GET, "/metrics"),
            (Method::GET, "/v1/keys"),
        ] {
            let reply = client.request(method, path).send().await;
            reply.problem(401, "unauthenticated");
            assert!(
                reply
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Bearer")
            );
        }
    }
    let basic = nobody
        .get("/stats")
        .header("authorization", "Basic eDp5")
        .send()
        .await;
    basic.problem(401, "unauthenticated");
    let in_query = format!("/v1/tasks?key={BOOTSTRAP}");
    nobody
        .get(&in_query)
        .send()
        .await
        .problem(401, "unauthenticated");
    for open in [
        "/livez",
        "/readyz",
        "/docs",
        "/openapi.json",
        "/problems/forbidden",
    ] {
        nobody.get(open).send().await.expect(200);
    }
    let ready = nobody.get("/readyz").send().await.json();
    assert!(
        ready.get("checks").is_none(),
        "readyz tells strangers too much: {ready}"
    );
    assert!(admin(&service).get("/readyz").send().await.json()["checks"].is_object());
    assert!(
        !service.log_text().contains(BOOTSTRAP),
        "a secret stands in the log"
    );
}

#[tokio::test]
async fn each_route_needs_its_scope() {
    let service = with_keys().await;
    let task = json!({"type": "echo"});
    let (all, _) = client_of(&service, "ann", &["submit", "read", "cancel"]).await;
    let id = all.submit(&task, "k").await.id();
    all.ended(&id).await;
    let at = |rest: &str| format!("/v1/tasks/{id}{rest}");
    let routes: [(Method, String, &str); 14] = [
        (Method::POST, "/v1/tasks".into(), "submit"),
        (Method::POST, "/v1/tasks/check".into(), "submit"),
        (Method::POST, "/v1/files".into(), "submit"),
        (Method::POST, "/v1/tasks/redrive".into(), "submit"),
        (Method::POST, at("/redrive"), "submit"),
        (Method::GET, "/v1/tasks".into(), "read"),
        (Method::GET, at(""), "read"),
        (Method::GET, at("/result"), "read"),
        (Method::GET, at("/duplicates"), "read"),
        (Method::GET, "/v1/task-types".into(), "read"),
        (Method::POST, at("/cancel"), "cancel"),
        (Method::GET, "/metrics".into(), "metrics"),
        (Method::GET, "/v1/keys".into(), "admin"),
        (Method::POST, "/v1/keys".into(), "admin"),
    ];
    for scope in [
        "submit", "read", "cancel", "metrics", "lease", "act-as", "admin",
    ] {
        let (client, _) = client_of(&service, "ann", &[scope]).await;
        for (method, path, needed) in &routes {
            let reply = client
                .request(method.clone(), path)
                .json(&task)
                .send()
                .await;
            if scope == *needed || scope == "admin" {
                assert!(
                    !matches!(reply.status, 401 | 403),
                    "{scope} at {method} {path}: {}",
                    reply.text()
                );
            } else {
                reply.problem(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn what_is_anothers_is_answered_as_what_is_not_there() {
    let service = with_keys().await;
    let scopes = ["submit", "read", "cancel"];
    let (ann, _) = client_of(&service, "ann", &scopes).await;
    let (bob, _) = client_of(&service, "bob", &scopes).await;
    let task = json!({"type": "echo", "params": {"secret": "of ann"}});
    let id = ann.submit(&task, "k").await.id();
    ann.ended(&id).await;
    let file = ann
        .post("/v1/files")
        .body("of ann")
        .send()
        .await
        .expect(201)
        .json();
    let sha256 = file["sha256"].as_str().unwrap();
    let unknown = format!("{}{}", &id[..4], "0".repeat(32));
    let answers = async |id: &str, sha256: &str| {
        let mut answers = Vec::new();
        let file = format!("/v1/files/{sha256}");
        for (method, path) in [
            (Method::GET, format!("/v1/tasks/{id}")),
            (Method::GET, format!("/v1/tasks/{id}/result")),
            (Method::GET, format!("/v1/tasks/{id}/duplicates")),
            (Method::POST, format!("/v1/tasks/{id}/cancel")),
            (Method::POST, format!("/v1/tasks/{id}/redrive")),
            (Method::DELETE, format!("/v1/tasks/{id}")),
            (Method::GET, file),
        ] {
            let reply = bob.request(method, &path).send().await;
            let mut problem = reply.problem(404, "not-found");
            for own in ["instance", "request_id"] {
                problem[own] = Value::Null;
            }
            answers.push(problem);
        }
        answers
    };
    assert_eq!(
        answers(&id, sha256).await,
        answers(&unknown, &"0".repeat(64)).await
    );
    assert!(bob.list("").await.is_empty());
    assert!(bob.list("key=k").await.is_empty());
    let same = bob.submit(&task, "k").await.expect(202);
    assert_eq!(same.json()["deduplicated"], false);
    let reference = json!({"type": "echo", "file": {"sha256": sha256}});
    bob.submit(&reference, "f")
        .await
        .problem(422, "file-unknown");
    assert_eq!(ann.task(&id).await["state"], "succeeded");
    // Each counts what is theirs.
    bob.ended(&same.id()).await;
    let stats = bob.stats().await;
    assert_eq!(
        (&stats["scope"], &stats["total_tasks"]),
        (&json!("user"), &json!(1))
    );
    let all = admin(&service).stats().await;
    assert_eq!(
        (&all["scope"], &all["total_tasks"]),
        (&json!("all"), &json!(2))
    );
}

#[tokio::test]
async fn only_act_as_may_name_another_user() {
    let service = with_keys().await;
    let task = json!({"type": "echo", "params": {"for": "ann"}});
    let (gateway, _) = client_of(&service, "gateway", &["submit", "read", "act-as"]).await;
    let as_ann = gateway.user("ann").submit(&task, "k").await.expect(202);
    assert_eq!(as_ann.json()["user"], "ann");
    let (ann, _) = client_of(&service, "ann", &["submit", "read"]).await;
    assert_eq!(ann.submit(&task, "k").await.id(), as_ann.id());
    gateway
        .get(&format!("/v1/tasks/{}", as_ann.id()))
        .send()
        .await
        .problem(404, "not-found");
    let forged = ann.user("bob").submit(&task, "k2").await;
    forged.problem(403, "forbidden");
    // To name oneself is no forgery.
    ann.user("ann").get("/v1/tasks").send().await.expect(200);
    for bad in ["a b", "{p01}", &"x".repeat(129)] {
        let reply = gateway
            .get("/v1/tasks")
            .header("x-user-id", bad)
            .send()
            .await;
        assert_eq!(reply.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_and_stays_so() {
    let service = with_keys().await;
    let (client, id) = client_of(&service, "ann", &["read"]).await;
    client.get("/v1/tasks").send().await.expect(200);
    let listed = admin(&service).get("/v1/keys").send().await.expect(200);
    assert!(
        listed.text().contains(&id) && !listed.text().contains("secret"),
        "{}",
        listed.text()
    );
    let path = format!("/v1/keys/{id}");
    admin(&service).delete(&path).send().await.expect(204);
    until("the revocation", async || {
        let reply = client.get("/v1/tasks").send().await;
        (reply.status == 401).then_some(())
    })
    .await;
    admin(&service)
        .delete("/v1/keys/none")
        .send()
        .await
        .problem(404, "not-found");
    let expired = json!({"user": "ann", "scopes": ["read"], "expires_at": "2001-01-01T00:00:00Z"});
    admin(&service)
        .post("/v1/keys")
        .json(&expired)
        .send()
        .await
        .problem(422, "validation-failed");
}

#[tokio::test]
async fn keys_survive_a_restart() {
    let service = with_keys().await;
    let wanted = json!({"user": "ann", "scopes": ["read"]});
    let made = admin(&service)
        .post("/v1/keys")
        .json(&wanted)
        .send()
        .await
        .expect(201)
        .json();
    let service = service.kill().await.start().await;
    let client = service.client().bearer(made["key"].as_str().unwrap());
    client.get("/v1/tasks").send().await.expect(200);
}

#[tokio::test]
async fn the_command_line_makes_lists_and_revokes_keys() {
    let service = with_keys().await;
    let run = async |args: &[&str]| {
        let output = service
            .setup()
            .command()
            .env_remove("JUSTONCE_BOOTSTRAP_KEY")
            .env("JUSTONCE_URL", format!("http://{}", service.address))
            .env("JUSTONCE_API_KEY", BOOTSTRAP)
            .args(args)
            .output()
            .await
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    let made = run(&[
        "keys",
        "create",
        "--user",
        "carol",
        "--scopes",
        "submit,read",
    ])
    .await;
    let words: Vec<_> = made
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let key = words
        .iter()
        .find(|word| word.starts_with("jo_"))
        .expect("the secret")
        .to_string();
    let carol = service.client().bearer(&key);
    carol.get("/v1/tasks").send().await.expect(200);
    let listed = run(&["keys", "list"]).await;
    assert!(listed.contains("carol"), "{listed}");
    assert!(!listed.contains(&key), "a secret was listed");
    let id = key.split('_').nth(1).unwrap();
    assert!(listed.contains(id), "{listed}");
    run(&["keys", "revoke", id]).await;
    until("the revocation", async || {
        let reply = carol.get("/v1/tasks").send().await;
        (reply.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn off_is_for_this_machine_only() {
    let open = Setup::new()
        .env("JUSTONCE_LISTEN", "0.0.0.0:0")
        .env("JUSTONCE_AUTH", "off");
    let output = open.command().output().await.unwrap();
    assert!(
        !output.status.success(),
        "it listens to everyone without asking who they are"
    );
    let off = Setup::new().start().await;
    let client = off.client();
    let task = json!({"type": "echo"});
    assert_eq!(
        client.user("ann").submit(&task, "k").await.json()["user"],
        "ann"
    );
    assert_eq!(client.submit(&task, "k").await.json()["user"], "anonymous");
    client
        .get("/v1/tasks")
        .header("x-user-id", "a b")
        .send()
        .await
        .problem(400, "invalid-request");
}

#[tokio::test]
async fn leasing_pausing_and_looking_at_workers_need_their_scopes() {
    let service = with_keys().await;
    let (plain, _) = client_of(&service, "ann", &["submit", "read", "cancel"]).await;
    let (worker, _) = client_of(&service, "printer", &["lease"]).await;
    let (watcher, _) = client_of(&service, "eve", &["metrics"]).await;
    let lease = json!({"types": ["far"]});
    for client in [&plain, &watcher] {
        let refused = client.post("/v1/leases").json(&lease).send().await;
        refused.problem(403, "forbidden");
        let pause = client.post("/v1/task-types/echo/pause").send().await;
        pause.problem(403, "forbidden");
    }
    let known = worker.post("/v1/leases").json(&lease).send().await;
    known.problem(422, "unknown-task-type");
    plain
        .get("/v1/workers")
        .send()
        .await
        .problem(403, "forbidden");
    watcher.get("/v1/workers").send().await.expect(200);
    admin(&service)
        .post("/v1/task-types/echo/pause")
        .send()
        .await
        .expect(200);
    // What others have in the queue is for those to know who may see all.
    let limits = plain.get("/v1/limits").send().await.expect(200).json();
    assert_eq!(limits["queue_tasks"]["used"], serde_json::Value::Null);
    let limits = watcher.get("/v1/limits").send().await.expect(200).json();
    assert_eq!(limits["queue_tasks"]["used"], 0);
}
