//! A task as programs and services of the operator's get it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::domain::lease_id::LeaseId;
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
    /// Only for those who speak of the lease over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
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
    /// Where the bytes can be read, on this machine only.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a Path>,
    part: Option<&'a str>,
    name: Option<&'a str>,
    media_type: Option<&'a str>,
    sha256: Sha256Digest,
    size: u64,
}

/// One line of JSON, for a program on this machine.
pub fn line(attempt: &Attempt) -> Vec<u8> {
    let mut line = json(attempt, None);
    line.push(b'\n');
    line
}

/// JSON for a service: it gets the lease instead of paths, and the file with its help.
pub fn document(attempt: &Attempt) -> Vec<u8> {
    let lease = LeaseId {
        task: attempt.task.id.clone(),
        user: attempt.task.user.clone(),
        token: attempt.token,
    };
    json(attempt, Some(lease.to_string()))
}

fn json(attempt: &Attempt, lease_id: Option<String>) -> Vec<u8> {
    let task = &attempt.task;
    let paths = || attempt.file_paths.iter().map(PathBuf::as_path);
    let outside = lease_id.is_some();
    let files = || {
        let both = task.files.iter().zip(paths());
        both.map(move |(kept, path)| file(kept, (!outside).then_some(path)))
    };
    let request = Request {
        id: task.id.as_str(),
        task_type: &task.task_type,
        user: task.user.as_str(),
        attempt: task.attempt,
        fencing_token: attempt.token.0,
        lease_id,
        idempotency_key: attempt.idempotency_key.as_deref(),
        params: &task.params,
        file: files().next(),
        files: match task.files.len() {
            0 | 1 => Vec::new(),
            _ => files().collect(),
        },
    };
    // Only a path that is not UTF-8 could fail, and blob paths are ASCII below the operator's folder.
    serde_json::to_vec(&request).unwrap_or_default()
}

fn file<'a>(file: &'a File, path: Option<&'a Path>) -> RequestFile<'a> {
    RequestFile {
        path,
        part: file.part.as_deref(),
        name: file.name.as_deref(),
        media_type: file.media_type.as_deref(),
        sha256: file.sha256,
        size: file.size,
    }
}
