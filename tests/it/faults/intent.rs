//! What the clients want: work that is numbered, so that everything on record can be traced to it.

/// One piece of work under one key. Several clients may submit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    pub number: usize,
    /// Some intents ask for the same work under another key.
    pub content: usize,
    pub kind: Kind,
}

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Ends within the service.
    Echo,
    /// Leaves a trace outside.
    Record,
    /// Leaves a trace and takes its time, to be caught by pauses and kills.
    Slow,
    /// Leaves a trace and fails at first.
    Flaky,
    /// Run by a service of somebody's, over HTTP.
    Remote,
    /// Run by workers that lease it.
    Far,
    /// A page is fetched.
    Page,
    /// A webhook is told something.
    Hook,
    /// An e-mail is sent.
    Mail,
    /// A file with a table is read.
    Table,
    /// A file with a text is read.
    Document,
    /// The user's day is summed up.
    Report,
    /// What is old is removed.
    CleanUp,
    /// Fails for good.
    Hopeless,
}

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
            kind: Kind::numbered(content),
        }
    }

    pub fn key(&self) -> String {
        format!("key-{}", self.number)
    }
}

impl Kind {
    /// Of contents that are not planned.
    pub fn numbered(content: usize) -> Kind {
        match content % 50 {
            1 => Kind::Slow,
            2 => Kind::Flaky,
            n if n % 5 == 3 => Kind::Record,
            _ => Kind::Echo,
        }
    }

    pub fn task_type(self) -> &'static str {
        match self {
            Kind::Echo | Kind::Hopeless => "echo",
            Kind::Record => "record",
            Kind::Slow => "slow",
            Kind::Flaky => "flaky",
            Kind::Remote => "remote",
            Kind::Far => "far",
            Kind::Page => "scrape_website",
            Kind::Hook | Kind::Mail => "send_notification",
            Kind::Table => "process_file",
            Kind::Document => "process_document",
            Kind::Report => "generate_analytics_report",
            Kind::CleanUp => "cleanup_old_data",
        }
    }

    /// The state in which its tasks end.
    pub fn end(self) -> &'static str {
        match self {
            Kind::Hopeless => "failed",
            _ => "succeeded",
        }
    }

    /// Whether each execution leaves a trace outside, and its token in the result.
    pub fn leaves_traces(self) -> bool {
        matches!(
            self,
            Kind::Record | Kind::Slow | Kind::Flaky | Kind::Remote | Kind::Far
        )
    }
}

/// A request that reads.
pub fn read(user: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: justonce\r\nx-user-id: {user}\r\n\r\n").into_bytes()
}
