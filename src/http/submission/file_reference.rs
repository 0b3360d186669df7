//! Files that a submission names by their digest, instead of sending them again.

use serde_json::{Map, Value};

use super::members::Members;
use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::domain::principal::UserId;
use crate::domain::schema::Violation;
use crate::http::code::Code;
use crate::http::problem::Problem;
use crate::store::Store;

/// `{"sha256", "size"?}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReference {
    pub pointer: String,
    pub sha256: Sha256Digest,
    pub size: Option<u64>,
}

impl FileReference {
    /// Reads `file` or `files`; both at once would leave open which one counts.
    pub fn take_from(submission: &mut Members, files_max: usize) -> Vec<FileReference> {
        let one = submission.object("file");
        let several = submission.read("files", "must be an array", |value| match value {
            Value::Array(items) => Some(items),
            _ => None,
        });
        match (one, several) {
            (None, None) => Vec::new(),
            (Some(one), None) => Self::all("/file", vec![Value::Object(one)], submission),
            (None, Some(several)) if several.len() > files_max => {
                submission.refuse("files", "has too many items");
                Vec::new()
            }
            (None, Some(several)) => Self::all("/files", several, submission),
            (Some(_), Some(_)) => {
                submission.refuse("files", "cannot stand together with file");
                Vec::new()
            }
        }
    }

    fn all(at: &str, values: Vec<Value>, submission: &mut Members) -> Vec<FileReference> {
        let mut references = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            let pointer = match at {
                "/files" => format!("/files/{index}"),
                at => at.to_owned(),
            };
            let read = match value {
                Value::Object(members) => Self::read(&pointer, members),
                _ => Err(vec![Violation {
                    pointer,
                    detail: "must be an object".into(),
                }]),
            };
            match read {
                Ok(reference) => references.push(reference),
                Err(violations) => submission.refuse_all(violations),
            }
        }
        references
    }

    fn read(pointer: &str, members: Map<String, Value>) -> Result<Self, Vec<Violation>> {
        let mut members = Members::new(pointer, members);
        let sha256 = members.read("sha256", "must be 64 hexadecimal digits", |value| {
            Sha256Digest::parse_hex(value.as_str()?)
        });
        let size = members.read("size", "must be a number of bytes", |value| value.as_u64());
        let violations = members.violations(&[]);
        match sha256 {
            Some(sha256) if violations.is_empty() => Ok(FileReference {
                pointer: pointer.to_owned(),
                sha256,
                size,
            }),
            None if violations.is_empty() => Err(vec![Violation {
                pointer: format!("{pointer}/sha256"),
                detail: "is required".into(),
            }]),
            Some(_) | None => Err(violations),
        }
    }

    /// The file on record: its size and name are part of the submission's identity.
    pub async fn resolve(&self, store: &dyn Store, user: &UserId) -> Result<File, Problem> {
        let Some(known) = store.file(user, &self.sha256).await? else {
            return Err(unknown(&self.sha256));
        };
        if self.size.is_some_and(|size| size != known.size) {
            let pointer = format!("{}/size", self.pointer);
            return Err(Problem::invalid(&pointer, "is not the size of this file"));
        }
        Ok(on_record(known))
    }
}

/// A file that is stored already: which copy is decided when the submission is admitted.
pub fn on_record(known: File) -> File {
    File {
        part: None,
        generation: None,
        ..known
    }
}

pub fn unknown(sha256: &Sha256Digest) -> Problem {
    let detail = format!("No file with SHA-256 {sha256} was uploaded, or it is no longer kept.");
    Problem::new(Code::FileUnknown, detail)
}
