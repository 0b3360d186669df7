//! A server outside of the service: it answers as the test tells it, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::deadline::until;

pub struct Outside {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Connections that the other side has closed while they were kept waiting.
    hung_up: Arc<Mutex<usize>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What becomes of a request. Every connection is closed after it.
pub enum Does {
    Says(Vec<u8>),
    /// Says the first once and the second again and again, as long as it is listened to.
    Floods(Vec<u8>, Vec<u8>),
    /// Says this and nothing more, as long as the other side waits.
    Waits(Vec<u8>),
}

impl Outside {
    /// `answer` gets each request, and how many came before it.
    pub async fn start(answer: impl Fn(&Seen, usize) -> Does + Send + Sync + 'static) -> Outside {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outside = Outside {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            hung_up: Arc::default(),
        };
        let (seen, hung_up) = (outside.seen.clone(), outside.hung_up.clone());
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, hung_up, answer) = (seen.clone(), hung_up.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    let Some(request) = read(&mut stream).await else {
                        return;
                    };
                    let before = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request.clone());
                        seen.len() - 1
                    };
                    if serve(&mut stream, answer(&request, before)).await {
                        *hung_up.lock().unwrap() += 1;
                    }
                });
            }
        });
        outside
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub async fn seen_reach(&self, count: usize) -> Vec<Seen> {
        until("a request outside", async || {
            let seen = self.seen();
            (seen.len() >= count).then_some(seen)
        })
        .await
    }

    pub async fn hung_up_reach(&self, count: usize) {
        until("the end of a request", async || {
            (*self.hung_up.lock().unwrap() >= count).then_some(())
        })
        .await;
    }
}

impl Seen {
    /// The value of a header field that came once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice");
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A whole answer. `more` are header lines, each with its end.
pub fn says(status: u16, more: &str, body: impl AsRef<[u8]>) -> Does {
    let body = body.as_ref();
    let mut bytes = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{more}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Does::Says(bytes)
}

/// Whether the other side has hung up on what was kept waiting.
async fn serve(stream: &mut TcpStream, does: Does) -> bool {
    match does {
        Does::Says(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Does::Floods(first, again) => {
            let _ = stream.write_all(&first).await;
            while stream.write_all(&again).await.is_ok() {}
            true
        }
        Does::Waits(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let mut byte = [0];
            matches!(stream.read(&mut byte).await, Ok(0) | Err(_))
        }
    }
}

/// One request with a body of a known length, or none.
async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut block = [0; 16 * 1024];
    let mut more = async |bytes: &mut Vec<u8>| {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut block)).await;
        let count = read.ok()?.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&block[..count]);
        Some(())
    };
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        more(&mut bytes).await?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: Vec<_> = lines.filter_map(field).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    while bytes.len() < end + length {
        more(&mut bytes).await?;
    }
    Some(Seen {
        method: first.next()?,
        path: first.next()?,
        headers,
        body: bytes[end..].to_vec(),
    })
}
