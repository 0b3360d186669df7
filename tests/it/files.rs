//! Files on their way in and out.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use justonce::domain::digest::Sha256Digest;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::wire::Wire;
use crate::support::{Client, Reply, Setup};

const CSV: &[u8] = b"city;people\nOslo;709037\n";

fn sha256(bytes: &[u8]) -> String {
    Sha256Digest::of(bytes).to_string()
}

/// A `Repr-Digest` field value.
fn digest(bytes: &[u8]) -> String {
    let hash = Sha256Digest::of(bytes);
    format!("sha-256=:{}:", BASE64_STANDARD.encode(hash.as_bytes()))
}

fn task_part() -> Part {
    let task = json!({"type": "echo", "params": {"lang": "de"}});
    Part::text(task.to_string())
        .mime_str("application/json")
        .unwrap()
}

fn file_part(name: &str) -> Part {
    Part::bytes(CSV)
        .file_name(name.to_owned())
        .mime_str("text/csv")
        .unwrap()
}

async fn upload(client: &Client, query: &str, bytes: &'static [u8]) -> Reply {
    let request = client.post(&format!("/v1/files{query}")).body(bytes);
    request.header("content-type", "text/csv").send().await
}

#[tokio::test]
async fn every_way_of_sending_one_file_is_the_same_submission() {
    let service = Setup::new().start().await;
    let client = service.client();
    let first = Form::new()
        .part("task", task_part())
        .part("file", file_part("data.csv"));
    let reply = client
        .post("/v1/files")
        .multipart(first)
        .send()
        .await
        .expect(202);
    let id = reply.id();
    let file = &reply.json()["file"];
    assert_eq!(file["sha256"], sha256(CSV));
    assert_eq!(file["size"], CSV.len());
    assert_eq!(file["name"], "data.csv");
    assert_eq!(file["media_type"], "text/csv");
    client.ended(&id).await;

    let file_first = Form::new()
        .part("file", file_part("other.csv"))
        .part("task", task_part());
    let plain_fields = Form::new()
        .text("params", r#"{ "lang" : "de" }"#)
        .part("file", file_part("x"))
        .text("type", "echo");
    for form in [file_first, plain_fields] {
        let reply = client
            .post("/v1/files")
            .multipart(form)
            .send()
            .await
            .expect(200);
        assert_eq!(reply.id(), id);
    }
    let query = "?type=echo&params=%7B%22lang%22%3A%22de%22%7D&filename=third.csv";
    assert_eq!(upload(&client, query, CSV).await.expect(200).id(), id);
    let put = client
        .put(&format!("/v1/files{query}"))
        .body(CSV)
        .send()
        .await
        .expect(200);
    assert_eq!(put.id(), id);
    for reference in ["file", "files"] {
        let file = json!({"sha256": sha256(CSV), "size": CSV.len()});
        let mut task = json!({"type": "echo", "params": {"lang": "de"}});
        task[reference] = if reference == "files" {
            json!([file])
        } else {
            file
        };
        assert_eq!(client.submit_keyless(&task).await.expect(200).id(), id);
    }
    assert_eq!(client.stats().await["total_tasks"], 1);
    until("copies that nobody names to go", async || {
        (service.stored_files().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn other_bytes_or_params_are_other_work() {
    let service = Setup::new().start().await;
    let client = service.client();
    let id = upload(&client, "?type=echo", CSV).await.expect(202).id();
    let other = upload(&client, "?type=echo", b"city;people\nOslo;709038\n")
        .await
        .expect(202)
        .id();
    let params = upload(&client, "?type=echo&params=%7B%22a%22%3A1%7D", CSV)
        .await
        .expect(202)
        .id();
    assert!(id != other && id != params && other != params);
    let reused = |bytes: &'static [u8]| {
        let request = client.post("/v1/files?type=echo").key("k");
        request
            .header("content-type", "text/csv")
            .body(bytes)
            .send()
    };
    reused(CSV).await;
    let problem = reused(b"x").await.problem(422, "idempotency-key-reused");
    assert_eq!(problem["differs"], json!(["file"]));
}

#[tokio::test]
async fn several_files_count_together_and_their_order_does_not() {
    let service = Setup::new().start().await;
    let client = service.client();
    let form = |names: [&str; 2]| {
        let part = |name: &str| Part::bytes(name.as_bytes().to_vec()).file_name("same.bin");
        let form = Form::new().text("type", "echo");
        form.part("file", part(names[0]))
            .part("file", part(names[1]))
    };
    let reply = client
        .post("/v1/files")
        .multipart(form(["one", "two"]))
        .send()
        .await
        .expect(202);
    let files = reply.json()["files"].clone();
    assert_eq!(files.as_array().unwrap().len(), 2, "{files}");
    let swapped = client
        .post("/v1/files")
        .multipart(form(["two", "one"]))
        .send()
        .await;
    assert_eq!(swapped.id(), reply.id());
    let twice = client
        .post("/v1/files")
        .multipart(form(["one", "one"]))
        .send()
        .await
        .expect(202);
    assert_ne!(twice.id(), reply.id());
}

#[tokio::test]
async fn without_a_type_a_file_is_stored_and_comes_back_as_it_was() {
    let service = Setup::new().start().await;
    let client = service.client();
    let stored = upload(&client, "?filename=..%2F..%2Fdata.csv", CSV)
        .await
        .expect(201);
    let sha256 = sha256(CSV);
    let path = format!("/v1/files/{sha256}");
    assert_eq!(stored.header("location"), Some(path.as_str()));
    assert_eq!(stored.json()["sha256"], sha256.as_str());
    assert_eq!(stored.json()["size"], CSV.len());

    let back = client.get(&path).send().await.expect(200);
    assert_eq!(back.body, CSV);
    let disposition = back.header("content-disposition").unwrap();
    assert!(disposition.starts_with("attachment"), "{disposition}");
    assert!(!disposition.contains('/'), "{disposition}");
    assert_eq!(back.header("x-content-type-options"), Some("nosniff"));
    let head = client.request(Method::HEAD, &path).send().await.expect(200);
    assert_eq!(
        head.header("content-length"),
        Some(CSV.len().to_string().as_str())
    );
    assert!(head.body.is_empty());

    let unknown = format!("/v1/files/{}", "0".repeat(64));
    client.get(&unknown).send().await.problem(404, "not-found");
    assert_eq!(
        client.request(Method::HEAD, &unknown).send().await.status,
        404
    );
    for bad in ["/v1/files/xyz", "/v1/files/..%2f..%2fetc%2fpasswd"] {
        client.get(bad).send().await.problem(404, "not-found");
    }
    // To another user, nobody has stored it.
    client
        .user("bob")
        .get(&path)
        .send()
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let service = Setup::new().start().await;
    let client = service.client();
    let stored = upload(&client, "", b"").await.expect(201).json();
    assert_eq!(stored["size"], 0);
    assert_eq!(stored["sha256"], sha256(b""));
    let back = client
        .get(&format!("/v1/files/{}", sha256(b"")))
        .send()
        .await
        .expect(200);
    assert!(back.body.is_empty());
}

#[tokio::test]
async fn a_digest_is_verified_and_a_mismatch_leaves_nothing() {
    let service = Setup::new().start().await;
    let client = service.client();
    for header in ["repr-digest", "content-digest"] {
        let send = |value: String| {
            client
                .post("/v1/files")
                .header(header, &value)
                .body(CSV)
                .send()
        };
        let problem = send(digest(b"other")).await.problem(400, "digest-mismatch");
        let uri = problem["type"].as_str().unwrap();
        assert!(uri.ends_with("digest-mismatched-values"), "{uri}");
        // Not an oracle: the digest that the service computed is not told.
        let computed = BASE64_STANDARD.encode(Sha256Digest::of(CSV).as_bytes());
        assert!(!problem.to_string().contains(&computed));
        assert!(!problem.to_string().contains(&sha256(CSV)));
        assert_eq!(send("sha-256=not base64".to_owned()).await.status, 400);
        assert!(
            service.stored_files().is_empty(),
            "{:?}",
            service.stored_files()
        );
    }
    client
        .post("/v1/files")
        .header("repr-digest", &digest(CSV))
        .body(CSV)
        .send()
        .await
        .expect(201);
    let other = client
        .post("/v1/files")
        .header("repr-digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:");
    let other = other.body(CSV).send().await;
    assert!(
        other
            .header("want-repr-digest")
            .or(other.header("want-content-digest"))
            .is_some()
    );
}

#[tokio::test]
async fn known_content_with_its_digest_is_answered_before_the_body_is_read() {
    let service = Setup::new().start().await;
    let client = service.client();
    let id = upload(&client, "?type=echo", CSV).await.expect(202).id();
    client.ended(&id).await;
    let head = |bytes: &[u8], expect: &str| {
        format!(
            "POST /v1/files?type=echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n\
             Content-Length: {}\r\nRepr-Digest: {}\r\n{expect}\r\n",
            bytes.len(),
            digest(bytes)
        )
    };
    const EXPECT: &str = "Expect: 100-continue\r\n";
    // With and without asking first: no byte of the body is ever sent.
    for expect in [EXPECT, ""] {
        let mut wire = Wire::connect(service.address).await;
        wire.send(head(CSV, expect)).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.status, 200, "{expect:?}");
        assert_eq!(answer.json()["id"], id.as_str());
    }
    let saved = client
        .get(&format!("/v1/tasks/{id}/duplicates"))
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(saved["items"][0]["bytes_saved"], CSV.len());
    // Unknown content is asked for.
    let mut wire = Wire::connect(service.address).await;
    wire.send(head(b"fresh", EXPECT)).await;
    assert_eq!(wire.head().await.unwrap().status, 100);
    wire.send("fresh").await;
    assert_eq!(wire.answer().await.unwrap().status, 202);
    // Another user's knowledge of the digest proves nothing: the body is asked for.
    let mut wire = Wire::connect(service.address).await;
    wire.send(head(CSV, EXPECT).replace("Host: x", "Host: x\r\nX-User-Id: bob"))
        .await;
    assert_eq!(wire.head().await.unwrap().status, 100);
}

#[tokio::test]
async fn file_names_are_cleaned_and_never_an_error() {
    let service = Setup::new().start().await;
    let client = service.client();
    let cases: &[(&str, Value)] = &[
        ("../../etc/passwd", json!("passwd")),
        (r"C:\temp\report.csv", json!("report.csv")),
        ("<script>alert(1)</script>", json!("script>")),
        ("naïve – ü.csv", json!("naïve – ü.csv")),
        ("a\u{202e}gpj.exe", json!("agpj.exe")),
        ("..", Value::Null),
    ];
    for (n, (name, kept)) in cases.iter().enumerate() {
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("type", "echo")
            .append_pair("params", &json!({"n": n}).to_string())
            .append_pair("filename", name)
            .finish();
        let raw = client
            .post(&format!("/v1/files?{query}"))
            .body(format!("bytes {n}"))
            .send()
            .await
            .expect(202);
        assert_eq!(raw.json()["file"]["name"], *kept, "{name:?} in the query");
    }
    let long = "é".repeat(2048) + ".csv";
    let form = Form::new()
        .text("type", "echo")
        .part("file", file_part(&long));
    let reply = client
        .post("/v1/files")
        .multipart(form)
        .send()
        .await
        .expect(202)
        .json();
    assert!(reply["file"]["name"].as_str().unwrap().len() <= 255);
    let id = reply["id"].as_str().unwrap();
    let body = client
        .get(&format!("/v1/files/{}", sha256(CSV)))
        .send()
        .await
        .expect(200);
    assert_eq!(body.body, CSV, "{id}");
}

#[tokio::test]
async fn a_reference_to_a_file_never_uploaded_is_refused() {
    let service = Setup::new().start().await;
    let client = service.client();
    let task = json!({"type": "echo", "file": {"sha256": sha256(CSV)}});
    client.submit(&task, "k").await.problem(422, "file-unknown");
    upload(&client, "", CSV).await.expect(201);
    client
        .user("bob")
        .submit(&task, "k")
        .await
        .problem(422, "file-unknown");
    let wrong_size = json!({"type": "echo", "file": {"sha256": sha256(CSV), "size": 1}});
    client
        .submit(&wrong_size, "size")
        .await
        .problem(422, "validation-failed");
    for bad in [
        json!("x"),
        json!({"sha256": "zz"}),
        json!({}),
        json!({"sha256": sha256(CSV), "path": "/etc"}),
    ] {
        let task = json!({"type": "echo", "file": bad});
        client
            .submit(&task, "bad")
            .await
            .problem(422, "validation-failed");
    }
    // The refusals left the key free.
    client.submit(&task, "k").await.expect(202);
}

#[tokio::test]
async fn a_type_that_needs_a_file_is_not_submitted_without() {
    let service = Setup::new().start().await;
    let client = service.client();
    let none = json!({"type": "process_file", "params": {}});
    client
        .submit_keyless(&none)
        .await
        .problem(422, "validation-failed");
    let neither = json!({"type": "process_document"});
    let refused = client.submit_keyless(&neither).await;
    refused.problem(422, "validation-failed");
    let inline = json!({"type": "process_document", "params": {"document": "A tide."}});
    client.submit_keyless(&inline).await.expect(202);
    let two = Form::new()
        .text("type", "process_file")
        .part(
            "file",
            Part::bytes(b"a,b\n1,2\n".to_vec()).file_name("1.csv"),
        )
        .part(
            "file",
            Part::bytes(b"a,b\n3,4\n".to_vec()).file_name("2.csv"),
        );
    let several = client.post("/v1/files").multipart(two).send().await;
    several.problem(422, "validation-failed");
}

#[tokio::test]
async fn the_size_limit_holds_whether_or_not_the_length_is_told() {
    let config = "[limits]\nfile_bytes_max = 1000\n";
    let service = Setup::new().config(config).start().await;
    let client = service.client();
    let fits = vec![b'x'; 1000];
    client.post("/v1/files").body(fits).send().await.expect(201);
    let kept = service.stored_files().len();

    // Told: refused before a byte of the body is there.
    let mut wire = Wire::connect(service.address).await;
    wire.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 413);
    // Not told.
    let mut wire = Wire::connect(service.address).await;
    wire.send("POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..3 {
        wire.send(format!("190\r\n{}\r\n", "x".repeat(0x190))).await;
    }
    wire.send("0\r\n\r\n").await;
    let answer = wire.answer().await.unwrap();
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["code"], "payload-too-large");
    let form = Form::new()
        .text("type", "echo")
        .part("file", Part::bytes(vec![0; 1001]));
    client
        .post("/v1/files")
        .multipart(form)
        .send()
        .await
        .problem(413, "payload-too-large");
    assert_eq!(
        service.stored_files().len(),
        kept,
        "what was refused left bytes behind"
    );
    assert_eq!(client.stats().await["total_tasks"], 0);
}

#[tokio::test]
async fn a_body_cut_short_leaves_nothing() {
    let service = Setup::new().start().await;
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\necho\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhalf";
    let heads = [
        (
            "?type=echo",
            "Content-Type: text/csv\r\nContent-Length: 1000000\r\n",
            "half".to_owned(),
        ),
        (
            "?type=echo",
            "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n",
            "4\r\nhalf\r\n".to_owned(),
        ),
        (
            "",
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n",
            multipart.to_owned(),
        ),
    ];
    for (query, head, half) in heads {
        let mut wire = Wire::connect(service.address).await;
        wire.send(format!(
            "POST /v1/files{query} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n{head}\r\n{half}"
        ))
        .await;
        wire.finish().await;
        let said = wire.closed().await;
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 400"),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
    // A multipart body that ends well as HTTP, but not as multipart.
    let client = service.client();
    let broken = client
        .post("/v1/files")
        .header("content-type", "multipart/form-data; boundary=b");
    broken
        .body(multipart)
        .send()
        .await
        .problem(400, "invalid-request");
    until("the beginnings to be removed", async || {
        service.stored_files().is_empty().then_some(())
    })
    .await;
    assert_eq!(client.stats().await["total_tasks"], 0);
    let reply = client
        .post("/v1/files?type=echo")
        .key("k")
        .body("whole")
        .send()
        .await;
    reply.expect(202);
}

#[tokio::test]
async fn multipart_without_sense_is_refused() {
    let service = Setup::new()
        .config("[limits]\nmultipart_parts_max = 4\n")
        .start()
        .await;
    let client = service.client();
    let post = |form: Form| client.post("/v1/files").multipart(form).send();
    assert_eq!(
        post(Form::new().text("type", "echo").text("surprise", "x"))
            .await
            .status,
        422
    );
    let no_boundary = client
        .post("/v1/files")
        .header("content-type", "multipart/form-data");
    let status = no_boundary.body("x").send().await.status;
    assert!(matches!(status, 400 | 415), "{status}");
    let many = (0..10).fold(Form::new().text("type", "echo"), |form, n| {
        form.part("file", Part::bytes(vec![n]).file_name("f"))
    });
    let status = post(many).await.status;
    assert!(matches!(status, 400 | 413), "{status}");
    let bad_params = Form::new()
        .text("type", "echo")
        .text("params", "{")
        .part("file", file_part("a"));
    post(bad_params).await.problem(400, "invalid-json");
    let unknown = Form::new()
        .text("type", "no_such")
        .part("file", file_part("a"));
    post(unknown).await.problem(422, "unknown-task-type");
    until("refused bytes to go", async || {
        service.stored_files().is_empty().then_some(())
    })
    .await;
}
