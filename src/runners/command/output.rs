//! What a program says on its standard output.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;

use crate::domain::task::Progress;
use crate::runner::AttemptError;

/// Reads lines: progress is passed on, and of all others the last one is the result.
pub struct Output<'a> {
    result_bytes_max: usize,
    progress: &'a mpsc::Sender<Progress>,
    line: Vec<u8>,
    /// The last line that was not empty and no progress.
    last: Vec<u8>,
    bytes: usize,
}

/// Beyond the result, for progress and for what programs print by the way.
const CHATTER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A longer line is no progress.
const PROGRESS_LINE_BYTES_MAX: usize = 64 * 1024;
/// Characters of a progress message that are kept.
const MESSAGE_LENGTH_MAX: usize = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressLine {
    progress: ProgressMembers,
}

#[derive(Deserialize)]
struct ProgressMembers {
    #[serde(default)]
    done: f64,
    total: Option<f64>,
    message: Option<String>,
}

impl<'a> Output<'a> {
    pub fn new(result_bytes_max: usize, progress: &'a mpsc::Sender<Progress>) -> Self {
        Output {
            result_bytes_max,
            progress,
            line: Vec::new(),
            last: Vec::new(),
            bytes: 0,
        }
    }

    /// Reads to the end, or until it is too much.
    pub async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>) -> Result<(), AttemptError> {
        let Some(pipe) = pipe else { return Ok(()) };
        let mut pipe = BufReader::with_capacity(64 * 1024, pipe);
        loop {
            // A pipe that breaks ends like one that is closed.
            let chunk = pipe.fill_buf().await.unwrap_or_default();
            if chunk.is_empty() {
                self.end_line().await;
                return Ok(());
            }
            let end = chunk.iter().position(|&b| b == b'\n');
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.line.extend_from_slice(&chunk[..end.unwrap_or(used)]);
            pipe.consume(used);
            self.bytes = self.bytes.saturating_add(used);
            if self.line.len() > self.result_bytes_max {
                return Err(too_large("the result is larger than the limit"));
            }
            if self.bytes > self.result_bytes_max.saturating_add(CHATTER_BYTES_MAX) {
                return Err(too_large("the program prints more than the limit"));
            }
            if end.is_some() {
                self.end_line().await;
            }
        }
    }

    /// The last line as JSON; `null` when there was none.
    pub fn result(self) -> Result<Box<RawValue>, AttemptError> {
        // Where something holds the pipe open beyond the program's end, its last line may lack an end.
        let lines = [self.line.as_slice(), self.last.as_slice()];
        let written = lines.into_iter().find(|line| !line.trim_ascii().is_empty());
        let text = written.unwrap_or(b"null");
        serde_json::from_slice(text).map_err(|_| {
            AttemptError::permanent(
                "result-invalid",
                "the last line that the program printed is not JSON",
            )
        })
    }

    async fn end_line(&mut self) {
        if self.line.trim_ascii().is_empty() {
            self.line.clear();
            return;
        }
        match progress(&self.line) {
            // Nobody listens any more once the attempt is being stopped.
            Some(progress) => drop(self.progress.send(progress).await),
            None => std::mem::swap(&mut self.last, &mut self.line),
        }
        self.line.clear();
    }
}

fn progress(line: &[u8]) -> Option<Progress> {
    if line.len() > PROGRESS_LINE_BYTES_MAX || !line.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let ProgressLine { progress } = serde_json::from_slice(line).ok()?;
    let cut = |text: String| text.chars().take(MESSAGE_LENGTH_MAX).collect();
    Some(Progress {
        done: progress.done,
        total: progress.total,
        message: progress.message.map(cut),
    })
}

fn too_large(message: &str) -> AttemptError {
    AttemptError::permanent("result-too-large", message)
}
