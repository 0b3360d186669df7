//! What a program gets on its standard input.

use std::path::Path;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::runner::Attempt;

#[derive(Serialize)]
struct Request<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    task_type: &'a str,
    user: &'a str,
    /// From 1.
    attempt: u32,
    fencing_token: u64,
    idempotency_key: Option<&'a str>,
    params: &'a RawValue,
    /// The first file.
    file: Option<RequestFile<'a>>,
    /// All files, when there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<RequestFile<'a>>,
}

#[derive(Serialize)]
struct RequestFile<'a> {
    /// Where the bytes can be read.
    path: &'a Path,
    part: Option<&'a str>,
    name: Option<&'a str>,
    media_type: Option<&'a str>,
    sha256: Sha256Digest,
    size: u64,
}

/// One line of JSON.
pub fn json(attempt: &Attempt) -> Vec<u8> {
    let task = &attempt.task;
    let files = || task.files.iter().zip(&attempt.file_paths).map(file);
    let request = Request {
        id: task.id.as_str(),
        task_type: &task.task_type,
        user: task.user.as_str(),
        attempt: task.attempt,
        fencing_token: attempt.token.0,
        idempotency_key: attempt.idempotency_key.as_deref(),
        params: &task.params,
        file: files().next(),
        files: match task.files.len() {
            0 | 1 => Vec::new(),
            _ => files().collect(),
        },
    };
    // Only a path that is not UTF-8 could fail, and blob paths are ASCII below the operator's folder.
    let mut line = serde_json::to_vec(&request).unwrap_or_default();
    line.push(b'\n');
    line
}

fn file<'a>((file, path): (&'a File, &'a std::path::PathBuf)) -> RequestFile<'a> {
    RequestFile {
        path,
        part: file.part.as_deref(),
        name: file.name.as_deref(),
        media_type: file.media_type.as_deref(),
        sha256: file.sha256,
        size: file.size,
    }
}
