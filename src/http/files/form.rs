//! Files and the rest of a submission as `multipart/form-data`, its parts in any order.

use std::collections::BTreeMap;

use axum::extract::multipart::Field;

use super::form_body::{Allowance, FormBody, malformed, problem_of};
use super::received::{Label, Received, Receiving};
use crate::domain::file::clean_file_name;
use crate::domain::json;
use crate::http::api::Api;
use crate::http::code::Code;
use crate::http::disposition::extended_file_name;
use crate::http::head::SubmissionHead;
use crate::http::media_type;
use crate::http::problem::Problem;
use crate::http::submission::{Carries, Draft, Drafted};
use crate::http::{clock, submission};

/// The part that holds a whole submission as JSON.
const TASK: &str = "task";
/// The part that is a file even without a file name.
const FILE: &str = "file";
/// Parts that are one member of a submission each, as text.
pub const MEMBERS: [&str; 8] = [
    "type",
    "params",
    "priority",
    "run_at",
    "delay_seconds",
    "tags",
    "dedup",
    "callback_url",
];
/// Characters that a part's name may have.
const PART_NAME_MAX: usize = 128;

/// A form that has been read to its end. Nothing of it is published yet.
pub struct Form {
    /// None for a form of files alone, which are only to be stored.
    pub drafted: Option<Drafted>,
    pub files: Vec<Received>,
}

impl Form {
    /// `members`: those of the submission that stood in the query, by name.
    pub async fn read(
        api: &Api,
        head: &SubmissionHead,
        members: BTreeMap<String, String>,
        body: FormBody,
    ) -> Result<Self, Problem> {
        let FormBody {
            mut parts,
            allowance,
        } = body;
        let mut reader = Reader {
            api,
            head,
            allowance,
            text_room: api.limits.json_body_bytes_max,
            draft: Draft::default(),
            drafted: None,
            files: Vec::new(),
        };
        for (name, text) in members {
            reader.member(&name, text.into_bytes())?;
        }
        for count in 0.. {
            reader.allowance.part_head();
            let part = parts.next_field().await.map_err(|e| problem_of(&e))?;
            let Some(part) = part else { break };
            if count == api.limits.multipart_parts_max {
                let detail = format!("A form may have {count} parts.");
                return Err(Problem::new(Code::PayloadTooLarge, detail));
            }
            reader.allowance.part_bytes();
            reader.part(part).await?;
        }
        reader.end()
    }
}

struct Reader<'a> {
    api: &'a Api,
    head: &'a SubmissionHead,
    allowance: Allowance,
    /// Bytes that all texts together may still have.
    text_room: usize,
    /// From parts that are one member each, and from the query.
    draft: Draft,
    /// From the part `task`.
    drafted: Option<Drafted>,
    files: Vec<Received>,
}

impl Reader<'_> {
    async fn part(&mut self, part: Field<'_>) -> Result<(), Problem> {
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(malformed("a part has no name"));
        };
        if name.chars().count() > PART_NAME_MAX || name.chars().any(char::is_control) {
            return Err(malformed("the name of a part is not acceptable"));
        }
        match name.as_str() {
            TASK => self.task(part).await,
            name if MEMBERS.contains(&name) => {
                let text = self.text(part).await?;
                self.member(name, text)
            }
            FILE => self.file(FILE, part).await,
            name if file_name(&part).is_some() => self.file(name, part).await,
            name => Err(Problem::invalid(
                &json::pointer("", name),
                "is no known part, and has no file name",
            )),
        }
    }

    /// Everything but the files can be refused as soon as this part is in.
    async fn task(&mut self, part: Field<'_>) -> Result<(), Problem> {
        let text = self.text(part).await?;
        if self.drafted.is_some() || !self.draft.is_empty() {
            return Err(conflict(TASK));
        }
        self.drafted = Some(self.drafted_from(Draft::from_json(&text)?)?);
        Ok(())
    }

    fn member(&mut self, name: &str, text: Vec<u8>) -> Result<(), Problem> {
        if self.drafted.is_some() {
            return Err(conflict(name));
        }
        let text = String::from_utf8(text)
            .map_err(|_| Problem::invalid(&json::pointer("", name), "is not UTF-8"))?;
        self.draft.set_text(name, text)?;
        self.draft
            .task_type(&self.api.types.now(), self.head.key())?;
        Ok(())
    }

    async fn text(&mut self, mut part: Field<'_>) -> Result<Vec<u8>, Problem> {
        let mut text = Vec::new();
        while let Some(bytes) = part.chunk().await.map_err(|e| problem_of(&e))? {
            let Some(room) = self.text_room.checked_sub(bytes.len()) else {
                let detail = "The texts of the form are larger than this service accepts.";
                return Err(Problem::new(Code::PayloadTooLarge, detail));
            };
            self.text_room = room;
            text.extend_from_slice(&bytes);
        }
        Ok(text)
    }

    async fn file(&mut self, name: &str, mut part: Field<'_>) -> Result<(), Problem> {
        let label = Label {
            part: Some(name.to_owned()),
            name: file_name(&part).as_deref().and_then(clean_file_name),
            media_type: media_type::of_file(part.content_type()),
        };
        let mut receiving = Receiving::begin(self.api).await?;
        while let Some(bytes) = part.chunk().await.map_err(|e| problem_of(&e))? {
            receiving.write(bytes).await?;
        }
        self.files.push(receiving.end(label));
        Ok(())
    }

    fn drafted_from(&self, draft: Draft) -> Result<Drafted, Problem> {
        draft.read(
            &self.api.types.now(),
            self.head.key(),
            Carries::Bytes,
            clock::now(),
        )
    }

    fn end(mut self) -> Result<Form, Problem> {
        let drafted = match self.drafted.take() {
            Some(drafted) => Some(drafted),
            None if self.draft.is_empty() => None,
            None => Some(self.drafted_from(self.draft.clone())?),
        };
        if self.files.is_empty() {
            return Err(submission::draft::no_file());
        }
        let task_type = drafted
            .as_ref()
            .map(|drafted| &drafted.submission.task_type);
        if let Some(max) = task_type
            .and_then(|t| t.files_max())
            .filter(|&max| self.files.len() > max)
        {
            let detail = format!("this task type reads at most {max} file of a submission");
            return Err(Problem::invalid("/files", &detail));
        }
        Ok(Form {
            drafted,
            files: self.files,
        })
    }
}

fn conflict(name: &str) -> Problem {
    Problem::invalid(
        &json::pointer("", name),
        "the part task holds the whole submission, and stands for itself",
    )
}

/// The name in full where a client sent both forms.
fn file_name(part: &Field<'_>) -> Option<String> {
    extended_file_name(part.headers()).or_else(|| part.file_name().map(str::to_owned))
}
