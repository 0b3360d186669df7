//! Views of tasks, and of all else, as answers hold them.

use serde::Serialize;

use super::code::Code;
use super::problem::Problem;

use crate::task_view::TaskView;

impl TaskView<'_> {
    pub fn to_bytes(&self) -> Result<Vec<u8>, Problem> {
        to_bytes(self)
    }
}

/// Views hold nothing that JSON could not; were it otherwise, that would be an error of ours.
pub fn to_bytes(view: &impl Serialize) -> Result<Vec<u8>, Problem> {
    /// More than most tasks take, so that the text need not move while it grows.
    const USUAL_BYTES: usize = 1024;
    let mut text = Vec::with_capacity(USUAL_BYTES);
    match serde_json::to_writer(&mut text, view) {
        Ok(()) => Ok(text),
        Err(error) => {
            Err(Problem::new(Code::Internal, "The answer could not be written.").caused_by(error))
        }
    }
}
