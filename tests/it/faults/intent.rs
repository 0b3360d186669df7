//! What the clients want: work that is numbered, so that everything on record can be traced to it.

/// One piece of work under one key. Several clients submit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    pub number: usize,
    /// Some intents ask for the same work under another key.
    pub content: usize,
    pub kind: Kind,
}

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ends within the service.
    Echo,
    /// Leaves a trace outside.
    Record,
    /// Leaves a trace and takes its time, to be caught by pauses and kills.
    Slow,
    /// Leaves a trace and fails at first.
    Flaky,
}

/// Spread over the partitions of a store.
const USERS: usize = 16;
/// Each with so many has the content of the one before.
const TWIN_EVERY: usize = 10;

impl Intent {
    /// `twins`: whether some intents share their content.
    pub fn numbered(number: usize, twins: bool) -> Intent {
        let is_twin = twins && number % TWIN_EVERY == TWIN_EVERY - 1;
        let content = number - usize::from(is_twin);
        Intent {
            number,
            content,
            kind: Kind::of(content),
        }
    }

    pub fn key(&self) -> String {
        format!("key-{}", self.number)
    }

    pub fn user(&self) -> String {
        user_of(self.content)
    }

    /// The whole request; every repeat sends the same bytes.
    pub fn request(&self) -> Vec<u8> {
        let (kind, content) = (self.kind.task_type(), self.content);
        let body = format!(
            r#"{{"type":"{kind}","params":{{"content":{content}}},"tags":{{"content":"{content}"}}}}"#
        );
        format!(
            "POST /v1/tasks HTTP/1.1\r\nhost: justonce\r\nx-user-id: {}\r\nidempotency-key: {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.user(),
            self.key(),
            body.len(),
        )
        .into_bytes()
    }
}

impl Kind {
    fn of(content: usize) -> Kind {
        match content % 50 {
            1 => Kind::Slow,
            2 => Kind::Flaky,
            n if n % 5 == 3 => Kind::Record,
            _ => Kind::Echo,
        }
    }

    pub fn task_type(self) -> &'static str {
        match self {
            Kind::Echo => "echo",
            Kind::Record => "record",
            Kind::Slow => "slow",
            Kind::Flaky => "flaky",
        }
    }
}

pub fn user_of(content: usize) -> String {
    format!("user-{}", content % USERS)
}

pub fn users() -> impl Iterator<Item = String> {
    (0..USERS).map(user_of)
}

/// A request that reads.
pub fn read(user: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: justonce\r\nx-user-id: {user}\r\n\r\n").into_bytes()
}
