//! Runs a program of the operator's: the task as JSON on its standard input, progress as lines
//! `{"progress": {…}}` on its standard output, the result as the last line.
//!
//! Exit status 0 succeeds, 65 (EX_DATAERR) fails for good, 75 (EX_TEMPFAIL) and all others are retried.
//! Why a missing program is retried too: it is a fault of the installation, not of the task, and the
//! tasks that arrive before it is mended should not end as dead letters.

pub mod launcher;
pub mod output;
pub mod process;

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;

use super::request;
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use launcher::Launcher;
use output::Output;
use process::Process;

#[derive(Clone, Debug)]
pub struct CommandRunner {
    /// The program and its arguments.
    words: Vec<String>,
    folder: PathBuf,
    launcher: Launcher,
    result_bytes_max: usize,
}

/// The variables that a program inherits.
const ENVIRONMENT: [&str; 3] = ["PATH", "HOME", "LANG"];
/// The end of standard error that is kept for the log.
const STDERR_BYTES_MAX: usize = 64 * 1024;
/// EX_DATAERR of sysexits.h.
const EXIT_DATA_ERROR: i32 = 65;

impl CommandRunner {
    /// The program runs in `folder`.
    pub fn new(
        words: Vec<String>,
        folder: PathBuf,
        launcher: Launcher,
        result_bytes_max: usize,
    ) -> Self {
        CommandRunner {
            words,
            folder,
            launcher,
            result_bytes_max,
        }
    }

    fn start(&self) -> Result<Process, AttemptError> {
        let mut command = self.launcher.command(&self.words);
        command.env_clear().current_dir(&self.folder);
        let inherited = |name| Some((name, std::env::var_os(name)?));
        command.envs(ENVIRONMENT.into_iter().filter_map(inherited));
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        Process::spawn(command).map_err(|error| {
            tracing::error!(program = self.program(), %error, "a program cannot be started");
            cannot_start()
        })
    }

    fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Everything that happens while the program runs.
    async fn attend(
        &self,
        process: &mut Process,
        attempt: &Attempt,
    ) -> Result<Box<RawValue>, AttemptError> {
        let request = request::line(attempt);
        let (stdin, stdout, stderr) = process.pipes();
        let mut output = Output::new(self.result_bytes_max, &attempt.progress);
        let mut errors = Vec::new();
        let status = {
            let talk = async {
                let said = write(stdin, &request);
                let heard = output.read(stdout);
                let complained = keep_tail(stderr, &mut errors);
                // Output that is too large ends it at once, without a wait for the other pipes.
                tokio::try_join!(said, heard, complained).map(drop)
            };
            tokio::pin!(talk);
            tokio::select! {
                biased;
                // The end of output usually comes first; a program may close it and go on.
                heard = &mut talk => match heard {
                    Ok(()) => process.wait().await,
                    Err(error) => return Err(error),
                },
                status = process.wait() => {
                    // What the program left behind in its group has been killed, which closes the pipes;
                    // what has left the group may hold them open, and is not waited for.
                    match tokio::time::timeout(process::LINGER, talk).await {
                        Ok(Err(error)) => return Err(error),
                        Ok(Ok(())) | Err(_) => status,
                    }
                }
            }
        };
        let status =
            status.map_err(|error| AttemptError::retryable("command-failed", error.to_string()))?;
        self.log(attempt, status, &errors);
        outcome(status)?;
        output.result()
    }

    fn log(&self, attempt: &Attempt, status: ExitStatus, errors: &[u8]) {
        let (program, task, attempt) = (self.program(), &attempt.task.id, attempt.task.attempt);
        let stderr = String::from_utf8_lossy(errors);
        if status.success() {
            tracing::debug!(program, %task, attempt, ?stderr, "a program has ended");
        } else {
            tracing::warn!(program, %task, attempt, %status, ?stderr, "a program has failed");
        }
    }
}

#[async_trait]
impl Runner for CommandRunner {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        let mut process = self.start()?;
        let ended = tokio::select! {
            ended = self.attend(&mut process, &attempt) => ended,
            () = attempt.cancel.cancelled() => {
                Err(AttemptError::retryable("stopped", "the program was stopped"))
            }
        };
        process.stop().await;
        ended.map(Success::from)
    }

    fn load(&self) -> Load {
        Load::Processor
    }
}

fn outcome(status: ExitStatus) -> Result<(), AttemptError> {
    match status.code() {
        Some(0) => Ok(()),
        Some(EXIT_DATA_ERROR) => Err(AttemptError::permanent(
            "command-failed",
            "the program refused the data (exit status 65)",
        )),
        Some(launcher::EXIT_NOT_STARTED | launcher::EXIT_NOT_FOUND) => Err(cannot_start()),
        Some(code) => Err(AttemptError::retryable(
            "command-failed",
            format!("the program ended with exit status {code}"),
        )),
        None => Err(AttemptError::retryable(
            "command-killed",
            "the program was ended by a signal",
        )),
    }
}

fn cannot_start() -> AttemptError {
    AttemptError::retryable("command-not-found", "the program could not be started")
}

/// A program that does not read its input breaks the pipe, which is its right.
async fn write(stdin: Option<ChildStdin>, request: &[u8]) -> Result<(), AttemptError> {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(request).await;
        let _ = stdin.shutdown().await;
    }
    Ok(())
}

/// Reads all of standard error, and keeps its end.
async fn keep_tail(
    pipe: Option<impl AsyncRead + Unpin>,
    tail: &mut Vec<u8>,
) -> Result<(), AttemptError> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..read]);
        if tail.len() > 2 * STDERR_BYTES_MAX {
            tail.drain(..tail.len() - STDERR_BYTES_MAX);
        }
    }
    tail.drain(..tail.len().saturating_sub(STDERR_BYTES_MAX));
    Ok(())
}

#[cfg(test)]
mod tests;
