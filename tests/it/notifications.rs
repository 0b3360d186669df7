//! `send_notification`: what the recipient gets, and how often.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::outside::{Does, Outside, says};
use crate::support::python::python;
use crate::support::redis;
use crate::support::signature::is_genuine;
use crate::support::smtp::MailServer;
use crate::support::{Client, Service, Setup};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const FAST: &str = "[egress]\nallow = [\"127.0.0.1\"]\n\
    [task_types.send_notification]\nretry = { first_delay_seconds = 0.02 }\n";

fn webhook(to: &str) -> Value {
    json!({"type": "send_notification", "params": {
        "channel": "webhook", "to": to, "title": "Ready", "level": "success", "body": "It is done. Grüße",
    }})
}

async fn sent(client: &Client, task: &Value) -> Value {
    let id = client.submit_keyless(task).await.id();
    client.ended(&id).await
}

#[tokio::test]
async fn a_webhook_is_signed_as_the_standard_says() {
    let outside = Outside::start(|_, _| says(204, "", "")).await;
    let setup = Setup::new()
        .config(FAST)
        .env("JUSTONCE_WEBHOOK_SECRET", SECRET);
    let service = setup.start().await;
    let done = sent(&service.client(), &webhook(&outside.url("/hook"))).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let seen = &outside.seen()[0];
    assert_eq!(seen.path, "/hook");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(
        seen.header("webhook-id"),
        done["result"]["message_id"].as_str()
    );
    let payload = seen.json();
    assert_eq!(payload["type"], "notification");
    assert_eq!(payload["timestamp"], done["created_at"]);
    let data = json!({"task_id": done["id"], "title": "Ready", "level": "success", "body": "It is done. Grüße"});
    assert_eq!(payload["data"], data);
    assert!(is_genuine(SECRET, seen).await);
    let other = "whsec_AAKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert!(!is_genuine(other, seen).await);
    let mut forged = seen.clone();
    forged.body.push(b' ');
    assert!(!is_genuine(SECRET, &forged).await);
    assert!(!service.log_text().contains("MfKQ9r8G"));
}

#[tokio::test]
async fn a_secret_is_made_at_the_first_start_and_kept() {
    let outside = Outside::start(|_, _| says(200, "", "")).await;
    let service = Setup::new().config(FAST).start().await;
    sent(&service.client(), &webhook(&outside.url("/1"))).await;
    let path = service.folder().join("data/webhook-secret");
    let secret = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let setup = service.kill().await;
    let service = setup.start().await;
    sent(&service.client(), &webhook(&outside.url("/2"))).await;
    let seen = outside.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert!(is_genuine(&secret, seen).await);
    }
}

#[tokio::test]
async fn replicas_sign_with_one_secret() {
    let (url, prefix) = (redis::durable().url(), redis::prefix());
    let replica = || {
        Setup::new()
            .env("REDIS_URL", &url)
            .env("JUSTONCE_REDIS_PREFIX", &prefix)
    };
    let (one, other) = tokio::join!(replica().start(), replica().start());
    let secret = |service: &Service| {
        let path = service.folder().join("data/webhook-secret");
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(secret(&one), secret(&other));
    assert!(secret(&one).starts_with("whsec_"));
}

#[tokio::test]
async fn however_often_it_is_submitted_the_recipient_sees_one_message() {
    let outside = Outside::start(|_, before| match before {
        0 => says(500, "", ""),
        // It has arrived, and nobody knows.
        1 => Does::Says(Vec::new()),
        2 => says(404, "", ""),
        _ => says(200, "", ""),
    })
    .await;
    let service = Setup::new().config(FAST).start().await;
    let client = service.client();
    let task = webhook(&outside.url("/"));
    let ids: Vec<_> = futures_util::future::join_all((0..20).map(|_| client.submit_keyless(&task)))
        .await
        .iter()
        .map(|reply| reply.id())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(client.ended(&ids[0]).await["attempt"], 4);
    assert_eq!(client.submit_keyless(&task).await.expect(200).id(), ids[0]);
    let seen = outside.seen();
    assert_eq!(seen.len(), 4);
    let first = &seen[0];
    for again in &seen {
        assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
        assert_eq!(again.body, first.body);
    }
    assert_eq!(
        first.header("webhook-id"),
        Some(format!("msg_{}", ids[0]).as_str())
    );
}

#[tokio::test]
async fn a_webhook_that_is_gone_or_moved_is_not_tried_again() {
    let outside = Outside::start(|seen, _| match seen.path.as_str() {
        "/gone" => says(410, "", ""),
        _ => says(302, "location: /gone\r\n", ""),
    })
    .await;
    let service = Setup::new().config(FAST).start().await;
    for path in ["/gone", "/moved"] {
        let failed = sent(&service.client(), &webhook(&outside.url(path))).await;
        assert_eq!(
            (&failed["state"], &failed["attempt"]),
            (&json!("failed"), &json!(1)),
            "{failed}"
        );
    }
    assert_eq!(outside.seen().len(), 2);
}

#[tokio::test]
async fn an_e_mail_arrives_with_its_subject_and_text() {
    let mails = MailServer::start().await;
    let config = format!(
        "[smtp]\nurl = \"{}\"\nfrom = \"Jobs <jobs@here.example>\"\n",
        mails.url()
    );
    let service = Setup::new().config(&config).start().await;
    let task = json!({"type": "send_notification", "params": {
        "channel": "email", "to": "ada@there.example", "subject": "Fertig: Übersicht\r\nBcc: eve@evil.example",
        "title": "Bericht", "level": "warning", "body": "Zeile eins\n.\nZeile drei mit ümläuten",
    }});
    let done = sent(&service.client(), &task).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let messages = mails.messages_reach(1).await;
    let message = &messages[0];
    assert_eq!(message["from"], "jobs@here.example");
    assert_eq!(message["to"], json!(["ada@there.example"]));
    let script = "import sys, json, email, email.policy\n\
        m = email.message_from_string(json.load(sys.stdin)['content'], policy=email.policy.default)\n\
        print(json.dumps({'headers': [n.lower() for n in m.keys()], 'subject': m['subject'], 'id': m['message-id'],\
        'from': m['from'], 'level': m['x-notification-level'], 'date': m['date'], 'body': m.get_content()}))";
    let mut child = Command::new(python())
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(message.to_string().as_bytes())
        .await
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let headers = read["headers"].as_array().unwrap();
    assert!(!headers.contains(&json!("bcc")), "{read}");
    assert!(
        read["subject"]
            .as_str()
            .unwrap()
            .starts_with("Fertig: Übersicht"),
        "{read}"
    );
    assert_eq!(read["id"], done["result"]["message_id"]);
    assert_eq!(
        read["id"],
        format!("<{}@here.example>", done["id"].as_str().unwrap())
    );
    assert_eq!(read["from"], "Jobs <jobs@here.example>");
    assert_eq!(read["level"], "warning");
    let body = read["body"].as_str().unwrap().replace("\r\n", "\n");
    assert_eq!(
        body.trim_end(),
        "Bericht\n\nZeile eins\n.\nZeile drei mit ümläuten"
    );
}

#[tokio::test]
async fn a_mail_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let mails = MailServer::start().await;
    let service = Setup::new()
        .config(FAST)
        .env(
            "JUSTONCE_SMTP_URL",
            &mails.url().replace("//", "//jobs:right@"),
        )
        .env("JUSTONCE_SMTP_FROM", "jobs@here.example")
        .start()
        .await;
    let client = service.client();
    let email = |to: &str| json!({"type": "send_notification", "params": {"channel": "email", "to": to, "body": "x"}});
    let busy = sent(&client, &email("busy@there.example")).await;
    assert_eq!(
        (&busy["state"], &busy["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{busy}"
    );
    assert_eq!(mails.messages_reach(1).await[0]["user"], "jobs");
    let refused = sent(&client, &email("nobody@there.example")).await;
    assert_eq!(
        (&refused["state"], &refused["attempt"]),
        (&json!("failed"), &json!(1)),
        "{refused}"
    );
    assert_eq!(refused["error"]["code"], "smtp-refused");
    // Its answer is lost once: the second copy has the same Message-ID, by which the recipient knows it.
    let lost = sent(&client, &email("lost@there.example")).await;
    assert_eq!(
        (&lost["state"], &lost["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{lost}"
    );
    let messages = mails.messages_reach(3).await;
    let content = |at: usize| messages[at]["content"].as_str().unwrap().to_owned();
    let id = lost["result"]["message_id"].as_str().unwrap();
    assert!(content(1).contains(id));
    assert_eq!(content(1), content(2));
    assert!(!service.log_text().contains("right"));
}

#[tokio::test]
async fn a_login_that_is_refused_is_the_installations_fault_and_tried_again() {
    let mails = MailServer::start().await;
    let service = Setup::new()
        .config("[task_types.send_notification]\nretry = { max_attempts = 2, first_delay_seconds = 0.02 }\n")
        .env("JUSTONCE_SMTP_URL", &mails.url().replace("//", "//jobs:wrong@"))
        .env("JUSTONCE_SMTP_FROM", "jobs@here.example")
        .start()
        .await;
    let task = json!({"type": "send_notification", "params": {"channel": "email", "to": "a@b.example", "body": "x"}});
    let failed = sent(&service.client(), &task).await;
    assert_eq!(
        (&failed["state"], &failed["attempt"]),
        (&json!("failed"), &json!(2)),
        "{failed}"
    );
    assert_eq!(failed["error"]["code"], "smtp-failed");
    assert!(mails.messages().is_empty());
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_its_submission() {
    let mails = MailServer::start().await;
    let with = Setup::new()
        .env("JUSTONCE_SMTP_URL", &mails.url())
        .env("JUSTONCE_SMTP_FROM", "jobs@here.example");
    let (with, without) = (with.start().await, Setup::new().start().await);
    for (mailing, params, pointer) in [
        (
            true,
            json!({"channel": "webhook", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "webhook", "to": "http://127.0.0.1/", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "webhook", "to": "http://[::ffff:a9fe:a9fe]/", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "webhook", "to": "https://u:p@a.example/", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "webhook", "to": "ftp://a.example/", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "webhook", "to": 7, "body": "x"}),
            "/params/to",
        ),
        (true, json!({"channel": "email", "body": "x"}), "/params/to"),
        (
            true,
            json!({"channel": "email", "to": "nobody", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "email", "to": "a@b.example\r\nBcc: c@d.example", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "email", "to": "a@b.example, c@d.example", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "email", "to": "a@b.example", "level": "loud", "body": "x"}),
            "/params/level",
        ),
        (
            true,
            json!({"channel": "email", "to": "a@b.example", "body": ""}),
            "/params/body",
        ),
        (
            true,
            json!({"channel": "email", "to": "a@b.example"}),
            "/params",
        ),
        (
            true,
            json!({"channel": "email", "to": "a@b.example", "body": "x", "cc": "y"}),
            "/params",
        ),
        (
            true,
            json!({"channel": "stream", "to": "ann", "body": "x"}),
            "/params/to",
        ),
        (
            true,
            json!({"channel": "pigeon", "body": "x"}),
            "/params/channel",
        ),
        (
            false,
            json!({"channel": "email", "to": "a@b.example", "body": "x"}),
            "/params/channel",
        ),
    ] {
        let service = if mailing { &with } else { &without };
        let task = json!({"type": "send_notification", "params": params});
        let refused = service.client().submit_keyless(&task).await;
        let problem = refused.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        let check = service
            .client()
            .post("/v1/tasks/check")
            .json(&task)
            .send()
            .await;
        check.problem(422, "validation-failed");
    }
    assert_eq!(with.client().stats().await["total_tasks"], 0);
}

#[tokio::test]
async fn three_retries_from_half_a_minute_are_the_default() {
    let service = Setup::new().start().await;
    let types = service
        .client()
        .get("/v1/task-types")
        .send()
        .await
        .expect(200)
        .json();
    let items = types["items"].as_array().unwrap();
    let of = |name: &str| items.iter().find(|item| item["name"] == name).unwrap();
    let notification = of("send_notification");
    assert_eq!(notification["retry"]["max_attempts"], 4);
    assert_eq!(notification["retry"]["first_delay_seconds"], 30.0);
    assert_eq!(
        notification["params_schema"]["required"],
        json!(["channel", "body"])
    );
    assert_eq!(of("scrape_website")["retry"]["first_delay_seconds"], 60.0);
    let document = service
        .client()
        .get("/openapi.json")
        .send()
        .await
        .expect(200)
        .json();
    for name in [
        "send_notification",
        "scrape_website",
        "process_file",
        "echo",
    ] {
        let schema = &document["components"]["schemas"][format!("{name}.params")];
        let mut schema = schema.clone();
        // Its own root, for references within it.
        schema.as_object_mut().unwrap().remove("$id");
        assert_eq!(schema, of(name)["params_schema"], "{name}");
    }
}

fn message(body: &str) -> Value {
    json!({"type": "send_notification", "params": {"channel": "stream", "body": body}})
}

/// Milliseconds since the epoch, so many seconds from now.
fn ms_from_now(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_millisecond() + seconds * 1000
}

#[tokio::test]
async fn a_message_comes_once_on_the_stream_of_its_user_and_on_no_other() {
    let config = "[task_types.alert]\nrunner = { builtin = \"send_notification\" }\n";
    let service = Setup::new().config(config).start().await;
    let (ann, bob) = (service.client().user("ann"), service.client().user("bob"));
    let mut stream = ann.follow("/v1/events", None).await;
    let mut other = bob.follow("/v1/events", None).await;
    stream.comment().await;
    other.comment().await;
    let mut params =
        json!({"channel": "stream", "title": "Shipped", "level": "success", "body": "Order 42"});
    let task = json!({"type": "send_notification", "params": params});
    let id = ann.submit(&task, "k").await.id();
    let mut kinds = Vec::new();
    let told = loop {
        let event = stream.next().await.unwrap();
        assert_eq!(event.task["id"], id.as_str());
        kinds.push(event.kind.clone());
        if event.kind == "notification" {
            break event;
        }
    };
    assert_eq!(kinds, ["state", "state", "notification"]);
    params.as_object_mut().unwrap().remove("channel");
    assert_eq!(told.task["result"]["message"], params);
    assert_eq!(told.task["result"]["message_id"], format!("msg_{id}"));
    assert_eq!(told.task["result"]["channel"], "stream");

    // However often it is submitted, nothing more is told of it: the next event is of something else.
    for key in ["k", "other"] {
        let again = ann.submit(&task, key).await.expect(200);
        assert_eq!(again.id(), id);
    }
    // Title and level may be left out, and the type may have another name.
    params = json!({"channel": "stream", "body": "Plain"});
    let alert = json!({"type": "alert", "params": params});
    let second = ann.submit(&alert, "k2").await.id();
    for kind in ["state", "state", "notification"] {
        let event = stream.next().await.unwrap();
        assert_eq!(
            (event.kind.as_str(), &event.task["id"]),
            (kind, &json!(second))
        );
    }
    // The stream of the task says the same.
    let events = ann
        .follow(&format!("/v1/tasks/{second}/events"), Some("0"))
        .await;
    let kinds: Vec<_> = events
        .rest()
        .await
        .into_iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, ["state", "state", "notification"]);
    // What is said over another type is no message.
    ann.echo(json!({"channel": "stream", "body": "x"})).await;
    for _ in 0..3 {
        assert_eq!(stream.next().await.unwrap().kind, "state");
    }
    bob.echo(json!({})).await;
    assert_eq!(other.next().await.unwrap().task["type"], "echo");
}

#[tokio::test]
async fn a_message_that_came_while_nobody_listened_is_told_to_who_comes_back() {
    let service = Setup::new().start().await;
    let ann = service.client().user("ann");
    let before = ann.submit(&message("one"), "k1").await.id();
    ann.ended(&before).await;
    let second = ann.submit(&message("two"), "k2").await.id();
    ann.ended(&second).await;
    let service = service.kill().await.start().await;
    let ann = service.client().user("ann");
    let resumed = async |since: i64| {
        let id = format!("3-{}", ms_from_now(since));
        ann.follow("/v1/events", Some(&id)).await
    };
    // Its last event is a minute old: both are news, in their order, each as a message and nothing else.
    let mut stream = resumed(-60).await;
    for expected in [&before, &second] {
        let event = stream.next().await.unwrap();
        assert_eq!(
            (
                event.kind.as_str(),
                event.task["id"].as_str(),
                event.number()
            ),
            ("notification", Some(expected.as_str()), 3)
        );
    }
    // It may have seen them: how they stand, and no message twice.
    let mut stream = resumed(0).await;
    for expected in [&before, &second] {
        let event = stream.next().await.unwrap();
        assert_eq!(
            (event.kind.as_str(), event.task["id"].as_str()),
            ("reset", Some(expected.as_str()))
        );
    }
    // It has seen them, and is told what comes.
    let mut stream = resumed(60).await;
    stream.comment().await;
    let third = ann.submit(&message("three"), "k3").await.id();
    let mut told = Vec::new();
    while told.last().is_none_or(|(kind, _)| kind != "notification") {
        let event = stream.next().await.unwrap();
        told.push((event.kind, event.task["id"].clone()));
    }
    assert!(told.iter().all(|(_, id)| *id == third.as_str()), "{told:?}");
}
