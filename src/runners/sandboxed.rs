//! Parsers of foreign files, each in a child process with limits.

use async_trait::async_trait;
use serde_json::Value;

use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use crate::sandbox::{FileRef, Kind, Request, Sandbox, SandboxError};

pub struct SandboxedRunner {
    kind: Kind,
    sandbox: Sandbox,
}

impl SandboxedRunner {
    pub fn new(kind: Kind, sandbox: Sandbox) -> Self {
        SandboxedRunner { kind, sandbox }
    }
}

#[async_trait]
impl Runner for SandboxedRunner {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        let request = request(&attempt)?;
        let size = request
            .file
            .as_ref()
            .and_then(|file| file.size)
            .unwrap_or(0);
        let sandbox = self.sandbox.for_input(size);
        // Whichever branch is not taken is dropped, and with it the child.
        tokio::select! {
            outcome = sandbox.run(self.kind, &request) => outcome.map(Success::from).map_err(attempt_error),
            () = attempt.cancel.cancelled() => Err(AttemptError::stopped()),
        }
    }

    fn load(&self) -> Load {
        Load::Processor
    }
}

fn request(attempt: &Attempt) -> Result<Request, AttemptError> {
    let params: Value = serde_json::from_str(attempt.task.params.get()).unwrap_or_default();
    let file = match (attempt.task.files.as_slice(), attempt.file_paths.as_slice()) {
        ([], _) => None,
        ([file], [path]) => Some(FileRef {
            path: path.clone(),
            name: file.name.clone(),
            media_type: file.media_type.clone(),
            size: Some(file.size),
        }),
        _ => {
            return Err(AttemptError::permanent(
                "too-many-files",
                "this task type reads one file at a time",
            ));
        }
    };
    Ok(Request { params, file })
}

pub fn attempt_error(error: SandboxError) -> AttemptError {
    AttemptError {
        code: error.code().to_owned(),
        message: error.to_string(),
        permanent: error.is_permanent(),
        retry_after: None,
    }
}
