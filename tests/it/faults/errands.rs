//! Where the tasks of a day lead: a service that runs some of them, pages, a receiver of webhooks and a mail server. All
//! of them remember what came.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use justonce::domain::timestamp::Timestamp;
use serde_json::json;

use super::trace::Traces;
use crate::support::Setup;
use crate::support::outside::{Does, Outside, Seen, says};
use crate::support::smtp::MailServer;

pub struct Errands {
    outside: Outside,
    mails: MailServer,
    began_ms: i64,
}

/// One in so many attempts over HTTP is refused for now.
const BUSY_ONE_IN: usize = 40;

impl Errands {
    /// What the service over HTTP runs leaves its traces among those of the programs.
    pub async fn start(traces: &Traces) -> Errands {
        let file = traces.file();
        let outside = Outside::start(move |seen, before| answer(seen, before, &file)).await;
        Errands {
            outside,
            mails: MailServer::start().await,
            began_ms: jiff::Timestamp::now().as_millisecond(),
        }
    }

    /// With what the service needs to reach all of them.
    pub fn known_to(&self, setup: Setup) -> Setup {
        setup
            .env("JUSTONCE_SMTP_URL", &self.mails.url())
            .env("JUSTONCE_SMTP_FROM", "JustOnce <justonce@example.test>")
    }

    /// The types of a day, besides those that leave traces anyway.
    pub fn config(&self) -> String {
        const RETRY: &str =
            "retry = { max_attempts = 500, first_delay_seconds = 0.1, max_delay_seconds = 0.5 }";
        let run = self.outside.url("/run");
        let builtin = [
            "process_file",
            "process_document",
            "scrape_website",
            "send_notification",
            "generate_analytics_report",
            "cleanup_old_data",
        ];
        let tables =
            builtin.map(|name| format!("[task_types.{name}]\nlease_seconds = 2\n{RETRY}\n"));
        format!(
            "{}[task_types.remote]\nrunner = {{ http = \"{run}\" }}\nlease_seconds = 2\n{RETRY}\n\
             [task_types.far]\nrunner = {{ external = true }}\nlease_seconds = 2\n{RETRY}\n\
             [egress]\nallow = [\"127.0.0.1\"]\n",
            tables.concat()
        )
    }

    pub fn page(&self, content: usize) -> String {
        self.outside.url(&format!("/page/{content}"))
    }

    pub fn hook(&self, content: usize) -> String {
        self.outside.url(&format!("/hook/{content}"))
    }

    pub fn mailbox(&self, content: usize) -> String {
        format!("reader-{content}@example.test")
    }

    /// Of a report: from when on, and until when. Another one for each content.
    pub fn period(&self, content: usize) -> (Timestamp, Timestamp) {
        const HOUR_MS: i64 = 3_600_000;
        let from = self.began_ms - HOUR_MS - content as i64;
        (
            Timestamp::from_ms(from),
            Timestamp::from_ms(from + 12 * HOUR_MS),
        )
    }

    /// How often each content was asked for: its page, its webhook, or its e-mail.
    pub fn asked_for(&self) -> HashMap<usize, u32> {
        let mut counts = HashMap::new();
        let paths = self.outside.seen();
        let paths = paths.iter().map(|seen| seen.path.clone());
        let mails = self.mails.messages();
        let mailboxes = mails
            .iter()
            .map(|mail| mail["to"][0].as_str().unwrap().to_owned());
        for place in paths.chain(mailboxes) {
            let digits: String = place.chars().filter(char::is_ascii_digit).collect();
            if let Ok(content) = digits.parse::<usize>() {
                *counts.entry(content).or_default() += 1;
            }
        }
        counts
    }
}

fn answer(seen: &Seen, before: usize, traces: &Path) -> Does {
    if seen.path.starts_with("/page/") {
        let page = format!("<title>{}</title><p>A page that is what it was.", seen.path);
        return says(200, "content-type: text/html; charset=utf-8\r\n", page);
    }
    let is_busy = before % BUSY_ONE_IN == BUSY_ONE_IN - 1;
    if seen.path.starts_with("/hook/") {
        return says(if is_busy { 503 } else { 204 }, "", "");
    }
    let mut line = seen.json().to_string();
    let token = seen.json()["fencing_token"].clone();
    line.push('\n');
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(traces)
        .unwrap();
    file.write_all(line.as_bytes()).unwrap();
    match is_busy {
        true => says(503, "", ""),
        // No two executions give the same.
        false => says(
            200,
            "",
            json!({"token": token, "process": before}).to_string(),
        ),
    }
}
