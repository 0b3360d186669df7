//! Streams of server-sent events, as a browser reads them.

use serde_json::Value;

use super::client::Client;
use super::deadline::within;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub task: Value,
}

impl Event {
    /// The number of the event within its task.
    #[track_caller]
    pub fn number(&self) -> u64 {
        let number = self.id.split('-').next().unwrap();
        number.parse().unwrap()
    }

    pub fn state(&self) -> &str {
        self.task["state"].as_str().unwrap()
    }
}

/// A stream that has begun.
pub struct EventStream {
    response: reqwest::Response,
    text: String,
}

impl Client {
    /// Begins a stream, after this event if one is named.
    pub async fn follow(&self, path: &str, last_event_id: Option<&str>) -> EventStream {
        let mut request = self.get(path);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.begin().await;
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-accel-buffering"), "no");
        EventStream {
            response,
            text: String::new(),
        }
    }
}

impl EventStream {
    /// The next event; none when the stream has ended as it should.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((piece, rest)) = self.text.split_once("\n\n") {
                let (piece, rest) = (piece.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = read(&piece) {
                    return Some(event);
                }
            }
            if !self.more().await {
                assert_eq!(self.text, "", "the stream was cut");
                return None;
            }
        }
    }

    /// All that come until the stream ends.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Reads until a comment comes.
    pub async fn comment(&mut self) {
        while !self.text.contains(":\n\n") {
            assert!(self.more().await, "the stream has ended");
        }
    }

    async fn more(&mut self) -> bool {
        let chunk = within("an event", self.response.chunk()).await.unwrap();
        let Some(chunk) = chunk else { return false };
        self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        true
    }
}

/// None for a comment.
fn read(piece: &str) -> Option<Event> {
    let field = |name: &str| {
        let prefix = format!("{name}: ");
        let lines = piece.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines.collect::<Vec<_>>().join("\n")
    };
    (!piece.starts_with(':')).then(|| Event {
        kind: field("event"),
        id: field("id"),
        task: serde_json::from_str(&field("data")).unwrap(),
    })
}
