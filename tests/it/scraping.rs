//! `scrape_website`: pages as they are, as they change, and as they should not be.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::certificates::Certificates;
use crate::support::deadline::until;
use crate::support::outside::{Does, Outside, says};
use crate::support::{Client, Setup};

const ALLOWED: &str = "[egress]\nallow = [\"127.0.0.1\"]\n\
    [task_types.scrape_website]\nretry = { max_attempts = 2, first_delay_seconds = 0.02 }\n";

const HTML: &str = "content-type: text/html; charset=utf-8\r\n";

/// A scrape that no earlier one answers for.
async fn scraped(client: &Client, url: &str) -> Value {
    let task = json!({"type": "scrape_website", "params": {"url": url}, "dedup": {"mode": "none"}});
    let id = client.submit_keyless(&task).await.id();
    client.ended(&id).await
}

#[track_caller]
fn result(task: &Value) -> &Value {
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["result"]["status"], "success");
    &task["result"]
}

#[tokio::test]
async fn title_text_links_and_language_of_a_page() {
    let page = "<!doctype html><html lang='de-CH'><head><title>Ein &amp; Alles</title>\
        <base href='/docs/'><script>location='http://10.0.0.1'</script></head><body>\
        <h1>Willkommen auf dieser Seite</h1><p>Das ist ein deutscher Text, der lang genug ist, um seine Sprache \
        zweifelsfrei zu erkennen, und der von nichts handelt.</p>\
        <a href='a.html'>A</a> <a href='a.html#part'>A again</a> <a href='/b?x=1&amp;y=2&copy=3'>B</a> \
        <a href=' https://other.example/c '>C</a> <a href='mailto:x@y.example'>M</a> <a href='javascript:alert(1)'>J</a> \
        <a href='//cdn.example/d'>D</a><map><area href='../e'></map><a>none</a></body></html>";
    let outside = Outside::start(move |_, _| {
        says(
            200,
            &format!("{HTML}etag: \"v1\"\r\nlast-modified: Sun, 22 Nov 2026 06:00:00 GMT\r\n"),
            page,
        )
    })
    .await;
    let service = Setup::new().config(ALLOWED).start().await;
    let url = outside.url("/start?q=1#top");
    let task = scraped(&service.client(), &url).await;
    let result = result(&task);
    assert_eq!(result["url"], url);
    assert_eq!(result["title"], "Ein & Alles");
    assert_eq!(result["language"], "de");
    let text = result["text"].as_str().unwrap();
    assert!(
        text.starts_with("Willkommen auf dieser Seite\n\nDas ist"),
        "{text}"
    );
    assert!(!text.contains("location="), "{text}");
    let base = outside.url("");
    let expected = json!([
        format!("{base}/docs/a.html"),
        format!("{base}/b?x=1&y=2&copy=3"),
        "https://other.example/c",
        "http://cdn.example/d",
        format!("{base}/e"),
    ]);
    assert_eq!(result["links"], expected);
    assert_eq!(result["etag"], "\"v1\"");
    assert_eq!(result["last_modified"], "Sun, 22 Nov 2026 06:00:00 GMT");
    assert_eq!(result["unchanged"], false);
    let seen = &outside.seen()[0];
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("GET", "/start?q=1")
    );
    assert!(seen.header("user-agent").unwrap().starts_with("JustOnce/"));
    assert_eq!(seen.header("if-none-match"), None);
}

#[tokio::test]
async fn texts_in_all_kinds_of_encodings_and_packings() {
    let outside = Outside::start(|seen, _| match seen.path.as_str() {
        "/plain" => says(
            200,
            "content-type: text/plain\r\n",
            "First line\nsecond line",
        ),
        "/declared" => says(
            200,
            "content-type: text/html; charset=ISO-8859-1\r\n",
            b"<title>Z\xfcrich</title><p>caf\xe9",
        ),
        "/meta" => says(
            200,
            "content-type: text/html\r\n",
            b"<meta charset=windows-1251><title>\xcc\xee\xf1\xea\xe2\xe0</title><p>x",
        ),
        "/utf-16" => says(
            200,
            "content-type: text/html\r\n",
            b"\xff\xfe<\0p\0>\0\xfc\0",
        ),
        "/untyped" => says(200, "", "<!doctype html><title>Untyped</title><p>x"),
        "/empty" => says(200, HTML, ""),
        "/xhtml" => says(
            200,
            "content-type: application/xhtml+xml\r\n",
            "<html><head><title>X</title></head><body><p>y</p></body></html>",
        ),
        _ => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(b"<title>Packed</title><p>x").unwrap();
            says(
                200,
                &format!("{HTML}content-encoding: gzip\r\n"),
                packed.finish().unwrap(),
            )
        }
    })
    .await;
    let service = Setup::new().config(ALLOWED).start().await;
    for (path, title, text) in [
        ("/plain", json!("First line"), "First line\nsecond line"),
        ("/declared", json!("Zürich"), "café"),
        ("/meta", json!("Москва"), "x"),
        ("/utf-16", json!(null), "ü"),
        ("/untyped", json!("Untyped"), "x"),
        ("/empty", json!(null), ""),
        ("/xhtml", json!("X"), "y"),
        ("/packed", json!("Packed"), "x"),
    ] {
        let task = scraped(&service.client(), &outside.url(path)).await;
        let result = result(&task);
        assert_eq!(result["title"], title, "{path}");
        assert_eq!(result["text"].as_str().unwrap().trim_end(), text, "{path}");
        assert_eq!(result["links"], json!([]), "{path}");
    }
}

#[tokio::test]
async fn a_page_that_has_not_changed_is_not_parsed_again() {
    let version = Arc::new(AtomicUsize::new(1));
    let current = version.clone();
    let outside = Outside::start(move |seen, _| {
        let version = current.load(Ordering::Relaxed);
        let tag = format!("\"v{version}\"");
        match seen.path.as_str() {
            "/tagged" if seen.header("if-none-match") == Some(&tag) => says(304, "", ""),
            "/tagged" => says(
                200,
                &format!("{HTML}etag: {tag}\r\n"),
                format!("<title>Version {version}</title>"),
            ),
            "/dated" if seen.header("if-modified-since").is_some() => says(304, "", ""),
            "/dated" => says(
                200,
                &format!("{HTML}last-modified: Sun, 22 Nov 2026 06:00:00 GMT\r\n"),
                "<title>D</title>",
            ),
            "/moved" => says(302, "location: /tagged\r\n", ""),
            _ => says(200, HTML, format!("<title>Version {version}</title>")),
        }
    })
    .await;
    let service = Setup::new().config(ALLOWED).start().await;
    let (one, other) = (service.client().user("one"), service.client().user("other"));
    for path in ["/tagged", "/plain", "/dated"] {
        let url = outside.url(path);
        assert_eq!(
            result(&scraped(&one, &url).await)["unchanged"],
            false,
            "{path}"
        );
        let again = scraped(&one, &url).await;
        let again = result(&again);
        assert_eq!(again["unchanged"], true, "{path}");
        assert!(again["title"].is_string(), "{again}");
        // Nothing that a user gets depends on what another one has looked at.
        assert_eq!(
            result(&scraped(&other, &url).await)["unchanged"],
            false,
            "{path}"
        );
    }
    version.store(2, Ordering::Relaxed);
    for path in ["/tagged", "/plain"] {
        let changed = scraped(&one, &outside.url(path)).await;
        let changed = result(&changed);
        assert_eq!(
            (&changed["unchanged"], &changed["title"]),
            (&json!(false), &json!("Version 2"))
        );
    }
    // What was learnt of the page behind a redirect is told to that page only, and outlives a restart.
    let moved = outside.url("/moved");
    let first = scraped(&one, &moved).await;
    assert_eq!(result(&first)["final_url"], outside.url("/tagged"));
    let setup = service.kill().await;
    let service = setup.start().await;
    let again = scraped(&service.client().user("one"), &moved).await;
    assert_eq!(result(&again)["unchanged"], true);
    let seen = outside.seen();
    let told: Vec<_> = seen
        .iter()
        .filter(|s| s.path == "/moved")
        .map(|s| s.header("if-none-match"))
        .collect();
    assert_eq!(told, [None, None]);
}

#[tokio::test]
async fn one_task_fetches_a_page_that_many_ask_for() {
    let outside = Outside::start(|_, _| says(200, HTML, "<title>x</title>")).await;
    let service = Setup::new().config(ALLOWED).start().await;
    let client = service.client();
    let task = json!({"type": "scrape_website", "params": {"url": outside.url("/")}});
    let replies =
        futures_util::future::join_all((0..20).map(|_| client.submit_keyless(&task))).await;
    let ids: Vec<_> = replies.iter().map(|reply| reply.id()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    client.ended(&ids[0]).await;
    assert_eq!(outside.seen().len(), 1);
}

#[tokio::test]
async fn what_is_no_page_fails_clearly() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b' '; 20_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    let outside = Outside::start(move |seen, before| match seen.path.as_str() {
        "/image" => says(200, "content-type: image/png\r\n", "\u{89}PNG"),
        "/json" => says(200, "content-type: application/json\r\n", "{}"),
        "/binary" => says(200, "", [0_u8, 1, 2, 3]),
        "/missing" => says(404, HTML, "<p>not here"),
        "/unasked" => says(304, "", ""),
        "/busy" => says(429, "retry-after: 0\r\n", ""),
        "/down" => says(503, "", ""),
        "/inside" => says(302, "location: http://127.0.0.2:1/admin\r\n", ""),
        "/metadata" => says(
            302,
            "location: http://169.254.169.254/latest/meta-data/\r\n",
            "",
        ),
        "/loop" => says(302, &format!("location: /loop?{before}\r\n"), ""),
        "/large" => says(200, HTML, vec![b'x'; 300_000]),
        "/bomb" => says(200, &format!("{HTML}content-encoding: gzip\r\n"), &bomb),
        "/endless" => Does::Floods(
            format!("HTTP/1.1 200 OK\r\n{HTML}\r\n").into_bytes(),
            vec![b'x'; 4096],
        ),
        "/headers" => Does::Floods(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-more: yes\r\n".to_vec()),
        "/slow" => Does::Waits(
            format!("HTTP/1.1 200 OK\r\n{HTML}content-length: 10\r\n\r\nx").into_bytes(),
        ),
        _ => says(302, "location: /loop\r\n", ""),
    })
    .await;
    let config = format!("{ALLOWED}[limits]\npage_bytes_max = 200000\npage_timeout_seconds = 1\n");
    let service = Setup::new().config(&config).start().await;
    let began = Instant::now();
    for (path, code, attempts) in [
        ("/image", "unsupported-format", 1),
        ("/json", "unsupported-format", 1),
        ("/binary", "unsupported-format", 1),
        ("/missing", "http-status", 1),
        ("/unasked", "http-status", 1),
        ("/busy", "http-status", 2),
        ("/down", "http-status", 2),
        ("/inside", "address-refused", 1),
        ("/metadata", "address-refused", 1),
        ("/loop", "redirect-refused", 1),
        ("/large", "response-too-large", 1),
        ("/bomb", "response-too-large", 1),
        ("/endless", "response-too-large", 1),
        ("/headers", "response-too-large", 1),
        ("/slow", "request-timeout", 2),
    ] {
        let failed = scraped(&service.client(), &outside.url(path)).await;
        assert_eq!(failed["state"], "failed", "{path}");
        assert_eq!(
            (&failed["error"]["code"], &failed["attempt"]),
            (&json!(code), &json!(attempts)),
            "{failed}"
        );
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(
            !message.contains("127.0.0.2") && !message.contains("169.254"),
            "{message}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    outside.hung_up_reach(4).await;
}

#[tokio::test]
async fn addresses_of_this_network_are_refused_in_every_spelling() {
    let service = Setup::new().start().await;
    let client = service.client();
    for url in [
        "http://127.0.0.1/",
        "http://127.1:8080/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::7f00:1]/",
        "http://localhost:6379/",
        "http://a.localhost/",
        "http://10.0.0.1/",
        "http://100.64.0.1/",
        "http://192.168.1.1/",
        "http://224.0.0.1/",
        "http://0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://user@a.example/",
        "https://a:b@a.example/",
        "ftp://a.example/",
        "file:///etc/passwd",
        "a.example",
        "",
    ] {
        let task = json!({"type": "scrape_website", "params": {"url": url}});
        let problem = client
            .submit_keyless(&task)
            .await
            .problem(422, "validation-failed");
        assert_eq!(
            problem["errors"][0]["pointer"], "/params/url",
            "{url}: {problem}"
        );
        assert!(!problem["errors"][0]["detail"].as_str().unwrap().is_empty());
    }
    for params in [
        json!({}),
        json!({"url": 7}),
        json!({"url": "http://a.example", "depth": 3}),
    ] {
        let task = json!({"type": "scrape_website", "params": params});
        client
            .submit_keyless(&task)
            .await
            .problem(422, "validation-failed");
    }
}

#[tokio::test]
async fn encrypted_pages_are_read_from_whom_they_claim_to_be_from() {
    let certificates = Certificates::for_server("DNS:localhost");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _server = tokio::process::Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &format!("127.0.0.1:{port}"),
        ])
        .args([
            "-cert",
            &certificates.path("server.pem"),
            "-key",
            &certificates.path("server.key"),
        ])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the server", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .ok()
    })
    .await;
    let config = ALLOWED.replace("\"127.0.0.1\"", "\"127.0.0.1\", \"localhost\"");
    let trusting = Setup::new()
        .config(&config)
        .env("SSL_CERT_FILE", &certificates.path("ca.pem"));
    let (trusting, wary) = (
        trusting.start().await,
        Setup::new().config(&config).start().await,
    );
    let page = scraped(&trusting.client(), &format!("https://localhost:{port}/")).await;
    let text = result(&page)["text"].as_str().unwrap();
    assert!(
        text.contains("s_server") && text.contains("TLSv1.3"),
        "{text}"
    );
    for (service, host) in [(&trusting, "127.0.0.1"), (&wary, "localhost")] {
        let failed = scraped(&service.client(), &format!("https://{host}:{port}/")).await;
        assert_eq!(failed["error"]["code"], "connection-failed", "{failed}");
    }
}

#[tokio::test]
async fn cancelling_hangs_up() {
    let outside = Outside::start(|_, _| Does::Waits(Vec::new())).await;
    let service = Setup::new().config(ALLOWED).start().await;
    let client = service.client();
    let task = json!({"type": "scrape_website", "params": {"url": outside.url("/")}});
    let id = client.submit_keyless(&task).await.id();
    outside.seen_reach(1).await;
    client
        .post(&format!("/v1/tasks/{id}/cancel"))
        .send()
        .await
        .expect(200);
    outside.hung_up_reach(1).await;
}
