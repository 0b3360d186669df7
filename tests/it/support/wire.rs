//! Bytes on a connection, for requests that no client library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::deadline::within;

pub struct Wire {
    stream: TcpStream,
    /// Read, but not yet taken.
    pending: Vec<u8>,
}

/// The head of an answer, and its body once read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|l| l.split_once(':'));
        fields
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Wire {
            stream,
            pending: Vec::new(),
        }
    }

    /// A server that has closed already is no fault here: what it said can still be read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The head of the next answer; none when the connection ends first.
    pub async fn head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.pending.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer {
            status,
            head,
            body: Vec::new(),
        })
    }

    /// The next answer with its body, which must say its length.
    pub async fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head().await?;
        let length = answer
            .header("content-length")
            .map_or(0, |l| l.parse().unwrap());
        while self.pending.len() < length {
            assert!(self.read_more().await, "the answer is cut short");
        }
        answer.body = self.pending.drain(..length).collect();
        Some(answer)
    }

    /// Waits until the server ends the connection; what it still said.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.pending)
    }

    /// Ends our half, so that the server sees the end of what was sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    async fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let read = within("bytes from the service", self.stream.read(&mut buffer)).await;
        let count = read.unwrap_or(0);
        self.pending.extend_from_slice(&buffer[..count]);
        count > 0
    }
}
