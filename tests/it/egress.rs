//! Requests that go out: where they may lead, and how much of an answer is taken.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use justonce::egress::error::EgressError;
use justonce::egress::resolver::Lookup;
use justonce::egress::rules::{Refusal, Rules};
use justonce::egress::{Egress, Request};
use serde_json::json;
use tokio::time::Instant;
use url::Url;

use crate::support::Setup;
use crate::support::deadline::within;
use crate::support::outside::{Does, Outside, says};

/// Resolves every name to these, one after the other and then the last again and again.
#[derive(Debug)]
struct Turns {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

fn turns(answers: &[&[&str]]) -> Arc<Turns> {
    let parse = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Arc::new(Turns {
        answers: answers.iter().map(parse).collect(),
        asked: AtomicUsize::new(0),
    })
}

#[async_trait]
impl Lookup for Turns {
    async fn lookup(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        match self.answers.get(asked).or(self.answers.last()) {
            Some(answer) => Ok(answer.clone()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// Only 127.0.0.1 is allowed; all else of this machine is not.
fn egress(lookup: Arc<Turns>) -> Egress {
    Egress::new(Rules::parse(["127.0.0.1"]).unwrap(), lookup).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn fetch(egress: &Egress, url: &str, bytes_max: usize) -> Result<Vec<u8>, EgressError> {
    let mut request = Request::get(Url::parse(url).unwrap(), soon());
    request.redirects_max = 3;
    let answer = egress.send(request).await?;
    let body = within("a body", answer.body(bytes_max)).await?;
    Ok(body.into())
}

const REFUSED: EgressError = EgressError::Refused(Refusal::NotPublic);

#[tokio::test]
async fn the_address_that_was_judged_is_connected_to() {
    let outside = Outside::start(|_, _| says(200, "", "here")).await;
    let port = outside.address.port();
    let url = format!("http://rebinding.example:{port}/");
    // Whoever asks twice, once to judge and once to connect, is told something else.
    let lookup = turns(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let egress = egress(lookup.clone());
    assert_eq!(fetch(&egress, &url, 100).await.unwrap(), b"here");
    assert_eq!(lookup.asked.load(Ordering::Relaxed), 1);
    assert_eq!(fetch(&egress, &url, 100).await, Err(REFUSED));
    assert_eq!(outside.seen().len(), 1);
}

#[tokio::test]
async fn names_that_lead_inside_are_refused_whatever_else_they_lead_to() {
    for answer in [
        &["10.0.0.1"][..],
        &["169.254.169.254"],
        &["::1"],
        &["::ffff:10.0.0.1"],
        &["64:ff9b::a00:1"],
        &["127.0.0.1", "10.0.0.1"],
    ] {
        let egress = egress(turns(&[answer]));
        let refused = fetch(&egress, "http://inside.example:9/", 100).await;
        assert_eq!(refused, Err(REFUSED), "{answer:?}");
    }
    let egress = egress(turns(&[]));
    let unknown = fetch(&egress, "http://nowhere.example/", 100).await;
    assert_eq!(unknown, Err(EgressError::Unresolved));
    assert!(!EgressError::Unresolved.is_permanent());
    assert!(REFUSED.is_permanent());
}

#[tokio::test]
async fn every_hop_of_a_redirect_is_judged_and_there_are_not_many() {
    let outside = Outside::start(|seen, _| match seen.path.as_str() {
        "/literal" => says(302, "location: http://127.0.0.2:1/\r\n", ""),
        "/decimal" => says(307, "location: http://2130706434/\r\n", ""),
        "/mapped" => says(
            301,
            "location: http://[::ffff:169.254.169.254]/latest\r\n",
            "",
        ),
        "/name" => says(308, "location: //inside.example/\r\n", ""),
        "/file" => says(302, "location: file:///etc/passwd\r\n", ""),
        "/user" => says(302, "location: http://user@127.0.0.1/\r\n", ""),
        "/broken" => says(302, "location: http://\r\n", ""),
        "/twice" => says(302, "location: once\r\n", ""),
        "/once" => says(303, "location: /end#part\r\n", ""),
        "/loop" => says(302, "location: /loop\r\n", ""),
        _ => says(200, "", "end"),
    })
    .await;
    let egress = egress(turns(&[&["10.0.0.1"]]));
    for (path, expected) in [
        ("/literal", Err(REFUSED)),
        ("/decimal", Err(REFUSED)),
        ("/mapped", Err(REFUSED)),
        ("/name", Err(REFUSED)),
        ("/file", Err(EgressError::Refused(Refusal::Scheme))),
        ("/user", Err(EgressError::Refused(Refusal::UserInfo))),
        ("/broken", Err(EgressError::BadRedirect)),
        ("/twice", Ok(b"end".to_vec())),
        ("/loop", Err(EgressError::TooManyRedirects(3))),
    ] {
        let got = fetch(&egress, &outside.url(path), 100).await;
        assert_eq!(got, expected, "{path}");
    }
    // The first of the loop, and three more.
    let loops = outside.seen().iter().filter(|s| s.path == "/loop").count();
    assert_eq!(loops, 4);
}

#[tokio::test]
async fn no_more_is_taken_than_was_asked_for() {
    let zeros = vec![0; 50 * 1024 * 1024];
    let bomb = gzip(&zeros);
    assert!(bomb.len() < 100_000);
    let twice = gzip(&bomb);
    let cut = gzip(b"a whole text")[..12].to_vec();
    let outside = Outside::start(move |seen, _| match seen.path.as_str() {
        "/endless" => Does::Floods(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat(),
        ),
        "/unknown-length" => Does::Floods(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 4096]),
        "/announced" => says(200, "", vec![b'x'; 20_000]),
        "/bomb" => says(200, "content-encoding: gzip\r\n", &bomb),
        "/bomb-in-a-bomb" => says(200, "content-encoding: gzip, gzip\r\n", &twice),
        "/cut" => says(200, "content-encoding: gzip\r\n", &cut),
        "/packed" => says(200, "content-encoding: GZIP\r\n", gzip(b"a whole text")),
        "/brotli" => says(200, "content-encoding: br\r\n", "x"),
        "/lying" => Does::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nshort".to_vec()),
        "/endless-head" => {
            Does::Floods(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-more: yes\r\n".to_vec())
        }
        "/long-field" => Does::Floods(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 4096]),
        "/many-fields" => {
            let fields: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
            says(200, &fields, "x")
        }
        "/no-http" => Does::Says(b"SSH-2.0-OpenSSH_9\r\n".to_vec()),
        _ => Does::Says(Vec::new()),
    })
    .await;
    let egress = egress(turns(&[]));
    let large = || Err(EgressError::BodyTooLarge(10_000));
    for (path, expected) in [
        ("/endless", large()),
        ("/unknown-length", large()),
        ("/announced", large()),
        ("/bomb", Err(EgressError::BodyTooLarge(10_000))),
        ("/bomb-in-a-bomb", Err(EgressError::UnknownEncoding)),
        ("/cut", Err(EgressError::Damaged)),
        ("/packed", Ok(b"a whole text".to_vec())),
        ("/brotli", Err(EgressError::UnknownEncoding)),
        ("/lying", Err(EgressError::Broken)),
        ("/endless-head", Err(EgressError::HeadTooLarge)),
        ("/long-field", Err(EgressError::HeadTooLarge)),
        ("/many-fields", Err(EgressError::HeadTooLarge)),
        ("/no-http", Err(EgressError::Broken)),
        ("/nothing", Err(EgressError::Broken)),
    ] {
        let bytes_max = if path == "/bomb" { 1_000_000 } else { 10_000 };
        let got = fetch(&egress, &outside.url(path), bytes_max).await;
        let expected = match expected {
            Err(EgressError::BodyTooLarge(_)) => Err(EgressError::BodyTooLarge(bytes_max)),
            other => other,
        };
        assert_eq!(got, expected, "{path}");
    }
    // Endless answers were hung up on.
    outside.hung_up_reach(2).await;
}

#[tokio::test]
async fn slow_answers_are_given_up_at_their_deadline() {
    let outside = Outside::start(|seen, _| match seen.path.as_str() {
        "/silent" => Does::Waits(Vec::new()),
        "/head" => Does::Waits(b"HTTP/1.1 200 OK\r\nx-".to_vec()),
        "/early" => Does::Floods(
            Vec::new(),
            b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n".to_vec(),
        ),
        _ => Does::Waits(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst".to_vec()),
    })
    .await;
    let egress = egress(turns(&[]));
    for path in ["/silent", "/head", "/body", "/early"] {
        let url = Url::parse(&outside.url(path)).unwrap();
        let request = Request::get(url, Instant::now() + Duration::from_millis(300));
        let answered = async {
            let answer = egress.send(request).await?;
            answer.body(100).await
        };
        let ended = within(path, answered).await;
        assert_eq!(ended, Err(EgressError::TimedOut), "{path}");
    }
    outside.hung_up_reach(4).await;
}

#[tokio::test]
async fn proxy_variables_lead_nowhere() {
    let proxy = Outside::start(|_, _| says(200, "", "the proxy")).await;
    let site = Outside::start(|_, _| says(200, "content-type: text/plain\r\n", "the site")).await;
    let mut setup = Setup::new().config("[egress]\nallow = [\"127.0.0.1\"]\n");
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        setup = setup.env(name, &proxy.url(""));
    }
    let service = setup.start().await;
    let client = service.client();
    let task = json!({"type": "scrape_website", "params": {"url": site.url("/")}});
    let id = client.submit_keyless(&task).await.id();
    assert_eq!(client.ended(&id).await["result"]["text"], "the site");
    assert!(proxy.seen().is_empty());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
