//! The task types that are always there.

mod chores;
mod notification;
mod website;

use std::time::Duration;

use serde_json::{Value, json};

use super::defaults::Defaults;
use super::error::ConfigError;
use crate::domain::callback::Callback;
use crate::domain::schema::ParamsSchema;
use crate::domain::task_type::{FilesRule, RunnerSpec, TaskType, TaskTypes};

pub const NAMES: [&str; 8] = [
    "deliver_webhook",
    "echo",
    "process_file",
    "process_document",
    "scrape_website",
    "send_notification",
    chores::CLEAN_UP,
    chores::REPORT,
];

/// A notification that was not taken is tried again after this.
const NOTIFICATION_FIRST_DELAY: Duration = Duration::from_secs(30);

/// All of them.
pub fn all(defaults: &Defaults) -> Result<TaskTypes, ConfigError> {
    let made = NAMES.map(|name| task_type(name, defaults));
    let made: Result<Vec<_>, _> = made.into_iter().collect();
    Ok(made?.into_iter().flatten().collect())
}

/// The built-in type of that name.
pub fn task_type(name: &str, defaults: &Defaults) -> Result<Option<TaskType>, ConfigError> {
    if let Some(made) = chores::task_type(name, defaults)? {
        return Ok(Some(made));
    }
    let (description, files, schema) = match name {
        "echo" => (
            "Returns its params, to try things out and to measure.",
            FilesRule::Optional,
            Some(echo_params()),
        ),
        "process_file" => (
            "Reads a table (CSV, TSV, JSON lines, a workbook) and describes its columns.",
            FilesRule::Required,
            Some(file_params()),
        ),
        "process_document" => (
            "Extracts the text of a document and cuts it into chunks.",
            FilesRule::RequiredWithout("document"),
            Some(document_params()),
        ),
        "scrape_website" => (
            "Fetches a page and takes out its title, text and links.",
            FilesRule::None,
            Some(website::params()),
        ),
        "send_notification" => (
            "Tells someone something, over a webhook or by e-mail.",
            FilesRule::None,
            Some(notification::params()),
        ),
        Callback::TASK_TYPE => (
            "Tells a callback of a task's end. Made by the service itself, and by nobody else.",
            FilesRule::None,
            None,
        ),
        _ => return Ok(None),
    };
    let runner = match name {
        "process_file" | "process_document" => RunnerSpec::Sandboxed(name.to_owned()),
        _ => RunnerSpec::Builtin(name.to_owned()),
    };
    let schema = schema.map(ParamsSchema::compile).transpose();
    let mut made = TaskType {
        description: description.to_owned(),
        files,
        params_schema: schema.map_err(ConfigError::new)?,
        ..defaults.task_type(name, runner)?
    };
    match name {
        "scrape_website" | Callback::TASK_TYPE => {
            made.params_check = Some(website::check(defaults.egress.clone()));
            // A page is fetched once at a time. A callback of each task is another one, whatever its URL.
            if name == "scrape_website" {
                made.concurrency_key = Some("/url".to_owned());
            }
        }
        "send_notification" => {
            let check = notification::check(defaults.egress.clone(), defaults.mails);
            made.params_check = Some(check);
            made.retry.first_delay = NOTIFICATION_FIRST_DELAY;
            made.retry.max_delay = made.retry.max_delay.max(NOTIFICATION_FIRST_DELAY);
        }
        _ => {}
    }
    Ok(Some(made))
}

fn echo_params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "sleep_ms": {
                "type": "integer", "minimum": 0, "maximum": 86_400_000,
                "description": "Waits this long, in milliseconds, before it answers.",
            },
            "fail_times": {
                "type": "integer", "minimum": 0,
                "description": "This many attempts fail first.",
            },
            "fail_permanently": {
                "type": "boolean",
                "description": "Fails for good at the first attempt.",
            },
        },
        "additionalProperties": true,
    })
}

fn file_params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "delimiter": {
                "type": "string", "minLength": 1, "maxLength": 1,
                "description": "Between the fields of a CSV file; found by looking when absent.",
            },
            "encoding": {
                "type": "string",
                "description": "The character encoding of a text file, by its WHATWG label; found by looking when absent.",
            },
            "header": {
                "type": "boolean",
                "description": "Whether the first row holds the columns' names; found by looking when absent.",
            },
        },
        "additionalProperties": false,
    })
}

/// That the overlap is at most half a chunk is beyond JSON Schema: the runner refuses it.
fn document_params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "chunk_size_chars": {
                "type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1000,
                "description": "Characters in a chunk at most.",
            },
            "overlap_chars": {
                "type": "integer", "minimum": 0, "maximum": 999_999, "default": 0,
                "description": "Characters that a chunk repeats from the one before; at most half of what a chunk has.",
            },
            "document": {
                "type": "string",
                "description": "The text itself, when no file is sent.",
            },
        },
        "additionalProperties": false,
    })
}
