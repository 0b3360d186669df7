//! The members of a submission before anything is known about them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::callback;
use super::dedup;
use super::file_reference::FileReference;
use super::members::Members;
use crate::domain::callback::Callback;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::json::{self, PARAMS_DEPTH_MAX};
use crate::domain::submission::{Start, Submission};
use crate::domain::task::Priority;
use crate::domain::task_type::{FilesRule, TaskType, TaskTypes};
use crate::domain::timestamp::Timestamp;
use crate::http::code::Code;
use crate::http::problem::Problem;

#[derive(Clone, Debug, Default)]
pub struct Draft(Map<String, Value>);

/// How the files of a submission come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Named by their digests, or not at all.
    References { files_max: usize },
    /// In the body of the same request.
    Bytes,
}

/// A valid submission, but for the files that it names.
#[derive(Clone, Debug)]
pub struct Drafted {
    pub submission: Submission,
    pub references: Vec<FileReference>,
}

impl Draft {
    /// Reads a JSON submission; what is not JSON, or not an object, ends here.
    pub fn from_json(text: &[u8]) -> Result<Self, Problem> {
        if text.is_empty() {
            return Err(Problem::new(Code::InvalidJson, "The body is empty."));
        }
        // The submission itself is one level above its params.
        match parse(text, PARAMS_DEPTH_MAX + 1)? {
            Value::Object(members) => Ok(Draft(members)),
            _ => Err(Problem::invalid("", "a submission is an object")),
        }
    }

    /// The key that an item of a batch brings along.
    pub fn take_key(&mut self) -> Result<Option<IdempotencyKey>, Problem> {
        let invalid = |detail: String| Problem::new(Code::IdempotencyKeyInvalid, detail);
        match self.0.remove("idempotency_key") {
            None => Ok(None),
            Some(Value::String(text)) => IdempotencyKey::parse(text.as_bytes())
                .map(Some)
                .map_err(|error| invalid(error.to_string())),
            Some(_) => Err(invalid("idempotency_key must be a string.".into())),
        }
    }

    /// The members of a submission that came with something else.
    pub fn of<const N: usize>(members: [(&str, Option<Value>); N]) -> Self {
        let given = members.into_iter();
        let given = given.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Draft(given.collect())
    }

    /// Adds a member that came as text: a form field or a query parameter.
    pub fn set_text(&mut self, name: &str, text: String) -> Result<(), Problem> {
        let value = match name {
            "params" | "tags" | "dedup" => parse(text.as_bytes(), PARAMS_DEPTH_MAX)?,
            // Left as text when it is no number: then it is refused by the rule for this member.
            "priority" | "delay_seconds" => text.parse().map_or(Value::String(text), Value::Number),
            _ => Value::String(text),
        };
        match self.0.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(Problem::invalid(&json::pointer("", name), "was sent twice")),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Types by which this submission can be read whatever today's ones refuse; none, if it names no type.
    pub fn types_without_rules(&self, types: &TaskTypes) -> Option<TaskTypes> {
        let name = self.0.get("type")?.as_str()?;
        let group = types.get(name).and_then(|today| today.dedup.group.clone());
        let mut unrestricted = TaskType::unrestricted(name);
        unrestricted.dedup.group = group;
        // What is wrong with a callback is wrong with every submission that brings it.
        let deliveries = types
            .get(Callback::TASK_TYPE)
            .map(|made| TaskType::clone(made));
        Some(TaskTypes::from_iter(
            [unrestricted].into_iter().chain(deliveries),
        ))
    }

    /// The type, if the submission names one that exists, and `key` is there if it must be.
    pub fn task_type(
        &self,
        types: &TaskTypes,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Arc<TaskType>>, Problem> {
        let Some(Value::String(name)) = self.0.get("type") else {
            return Ok(None);
        };
        let known = types.get(name).filter(|known| !known.is_internal());
        let Some(task_type) = known else {
            return Err(unknown_type(types));
        };
        match task_type.require_key && key.is_none() {
            true => Err(Problem::new(
                Code::IdempotencyKeyMissing,
                format!("Submissions of type {name} need an Idempotency-Key."),
            )),
            false => Ok(Some(task_type.clone())),
        }
    }

    /// All that can be said about a submission before its files are known.
    pub fn read(
        self,
        types: &TaskTypes,
        key: Option<&IdempotencyKey>,
        carries: Carries,
        now: Timestamp,
    ) -> Result<Drafted, Problem> {
        let task_type = self.task_type(types, key)?;
        let mut members = Members::new("", self.0);
        let start = start(&mut members, now);
        let priority = members.read("priority", "must be an integer from 0 to 9", |value| {
            Priority::new(value.as_u64()?)
        });
        let tags = tags(&mut members);
        let references = references(&mut members, carries, task_type.as_deref());
        let dedup = dedup::take(&mut members, task_type.as_deref(), start);
        let callback = callback::take(&mut members, types);
        let params = params(&mut members, task_type.as_deref());
        match (members.take("type"), &task_type) {
            (Some(_), Some(_)) => {}
            (Some(_), None) => members.refuse("type", "must be a string"),
            (None, _) => members.refuse("type", "is required"),
        }
        let mut violations = members.violations(&[]);
        let callback = match callback {
            Some(Err(refused)) if violations.is_empty() => return Err(callback::refused(refused)),
            Some(Err(refused)) => {
                violations.push(refused);
                None
            }
            Some(Ok(callback)) => Some(callback),
            None => None,
        };
        match task_type {
            Some(task_type) if violations.is_empty() => Ok(Drafted {
                submission: Submission {
                    task_type,
                    params,
                    files: Vec::new(),
                    priority,
                    start,
                    dedup,
                    tags,
                    callback,
                },
                references,
            }),
            Some(_) | None => Err(Problem::violations(violations)),
        }
    }
}

/// A request that should have brought a file.
pub fn no_file() -> Problem {
    Problem::invalid("/file", "at least one part must be a file")
}

fn parse(text: &[u8], depth_max: usize) -> Result<Value, Problem> {
    json::parse(text, depth_max).map_err(|e| Problem::new(Code::InvalidJson, e.to_string()))
}

fn unknown_type(types: &TaskTypes) -> Problem {
    let known = types.iter().filter(|known| !known.is_internal());
    let known: Vec<&str> = known.map(|known| known.name.as_str()).collect();
    Problem::new(Code::UnknownTaskType, "There is no such task type.").with("known", known)
}

fn params(members: &mut Members, task_type: Option<&TaskType>) -> Value {
    let params = match members.take("params") {
        None => Value::Object(Map::new()),
        Some(Value::Object(params)) => Value::Object(params),
        Some(_) => {
            members.refuse("params", "must be an object");
            return Value::Null;
        }
    };
    if let Some(task_type) = task_type {
        members.refuse_all(task_type.violations(&params));
    }
    params
}

fn start(members: &mut Members, now: Timestamp) -> Start {
    let run_at = members.read("run_at", "must be an RFC 3339 time", |value| {
        Timestamp::parse_rfc3339(value.as_str()?)
    });
    let delay = members.read(
        "delay_seconds",
        "must be a number of seconds, at most a year",
        |value| {
            let delay = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
            (delay <= Submission::DELAY_MAX).then_some(delay)
        },
    );
    match (run_at, delay) {
        (None, None) => Start::Now,
        (None, Some(Duration::ZERO)) => Start::Now,
        (None, Some(delay)) => Start::After(delay),
        (Some(at), None) if at > now.plus(Submission::DELAY_MAX) => {
            members.refuse("run_at", "must be within a year from now");
            Start::Now
        }
        (Some(at), None) => Start::At(at),
        (Some(_), Some(_)) => {
            members.refuse("delay_seconds", "cannot stand together with run_at");
            Start::Now
        }
    }
}

fn tags(members: &mut Members) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let sent = members.object("tags").unwrap_or_default();
    if sent.len() > Submission::TAGS_MAX {
        members.refuse("tags", "has more than 16 members");
        return tags;
    }
    let mut wrong = Members::new("/tags", Map::new());
    let fits = |text: &str| text.chars().count() <= Submission::TAG_LENGTH_MAX;
    for (name, value) in sent {
        match value {
            // A list is filtered by `name:value`, so that a name ends at its first colon.
            _ if name.is_empty() || name.contains(':') || !fits(&name) => {
                wrong.refuse(&name, "a tag's name has 1 to 128 characters, and no colon");
            }
            Value::String(value) if fits(&value) => {
                tags.insert(name, value);
            }
            _ => wrong.refuse(&name, "must be a string of at most 128 characters"),
        }
    }
    members.refuse_all(wrong.violations(&[]));
    tags
}

fn references(
    members: &mut Members,
    carries: Carries,
    task_type: Option<&TaskType>,
) -> Vec<FileReference> {
    let Carries::References { files_max } = carries else {
        for name in ["file", "files"] {
            if members.take(name).is_some() {
                members.refuse(name, "comes with the body of this request");
            }
        }
        if task_type.is_some_and(|t| t.files == FilesRule::None) {
            members.refuse("file", "this task type takes no files");
        }
        return Vec::new();
    };
    let files_max = task_type.and_then(TaskType::files_max).unwrap_or(files_max);
    let references = FileReference::take_from(members, files_max);
    let rule = task_type.map_or(FilesRule::Optional, |t| t.files);
    if references.is_empty() {
        if let Some(missing) = rule.missing(members.peek("params")) {
            members.refuse("file", &missing);
        }
    } else if rule == FilesRule::None {
        members.refuse("file", "this task type takes no files");
    }
    references
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
