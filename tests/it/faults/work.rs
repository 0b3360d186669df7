//! What the clients of a trial submit, and on whose behalf.

use std::sync::Arc;

use super::day::Day;
use super::intent::{Intent, Kind};

#[derive(Clone)]
pub enum Work {
    /// As many intents as are asked for. `twins`: whether some share their content.
    Numbered { twins: bool },
    /// What was planned for a day.
    Day(Arc<Day>),
}

/// Spread over the partitions of a store.
const USERS: usize = 16;

impl Work {
    /// The submission of this number. What was submitted before may come again.
    pub fn intent(&self, number: usize) -> Intent {
        match self {
            Work::Numbered { twins } => Intent::numbered(number, *twins),
            Work::Day(day) => day.submissions[number],
        }
    }

    /// None for a content that nobody submits.
    pub fn kind_of(&self, content: usize) -> Option<Kind> {
        match self {
            Work::Numbered { .. } => Some(Kind::numbered(content)),
            Work::Day(day) => day.kinds.get(content).copied(),
        }
    }

    pub fn user_of(&self, content: usize) -> String {
        format!("user-{}", content % self.user_count())
    }

    pub fn users(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.user_count()).map(|number| format!("user-{number}"))
    }

    fn user_count(&self) -> usize {
        match self {
            Work::Numbered { .. } => USERS,
            Work::Day(day) => day.users,
        }
    }

    /// The whole request; every repeat sends the same bytes.
    pub fn request(&self, intent: &Intent) -> Vec<u8> {
        let submission = match self {
            Work::Numbered { .. } => {
                Submission::of(intent, &format!("{{\"content\":{}}}", intent.content))
            }
            Work::Day(day) => day.submission(intent),
        };
        submission.request(&self.user_of(intent.content), &intent.key())
    }
}

/// What is sent for one intent.
pub struct Submission {
    path: &'static str,
    media_type: String,
    body: Vec<u8>,
}

const BOUNDARY: &str = "between-the-parts";

impl Submission {
    /// A task with these params, JSON.
    pub fn of(intent: &Intent, params: &str) -> Submission {
        Submission {
            path: "/v1/tasks",
            media_type: "application/json".to_owned(),
            body: task(intent, params).into_bytes(),
        }
    }

    pub fn request(self, user: &str, key: &str) -> Vec<u8> {
        let Submission {
            path,
            media_type,
            body,
        } = self;
        let length = body.len();
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: justonce\r\nx-user-id: {user}\r\nidempotency-key: {key}\r\n\
             content-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend(body);
        request
    }

    /// A task with this file, of whatever name.
    pub fn of_file(intent: &Intent, name: &str, file: &str) -> Submission {
        let task = task(intent, "{}");
        let body = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"task\"\r\ncontent-type: application/json\r\n\r\n\
             {task}\r\n--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n\
             {file}\r\n--{BOUNDARY}--\r\n"
        );
        Submission {
            path: "/v1/files",
            media_type: format!("multipart/form-data; boundary={BOUNDARY}"),
            body: body.into_bytes(),
        }
    }
}

/// Its content stands in its tags, too, by which its record is known.
fn task(intent: &Intent, params: &str) -> String {
    let (task_type, content) = (intent.kind.task_type(), intent.content);
    format!(r#"{{"type":"{task_type}","params":{params},"tags":{{"content":"{content}"}}}}"#)
}
