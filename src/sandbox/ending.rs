use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::error::SandboxError;
use super::wire::exit;
use crate::parsers::{Code, Failure};

/// How a child ended.
pub enum Ending {
    Exited {
        status: ExitStatus,
        output: Vec<u8>,
        stderr: String,
    },
    /// Killed, because it ran longer than allowed.
    OutOfTime,
    /// Killed, because it wrote more than allowed.
    OutOfRoom,
}

impl Ending {
    /// The result, or the error and what the child said about it, which is for the log only.
    pub fn outcome(self) -> Result<String, (SandboxError, String)> {
        let refused = |code, message: &str| SandboxError::Refused(Failure::new(code, message));
        let (status, output, stderr) = match self {
            Self::Exited {
                status,
                output,
                stderr,
            } => (status, output, stderr),
            Self::OutOfTime => {
                return Err((
                    refused(Code::TimeLimit, "the file took too long"),
                    String::new(),
                ));
            }
            Self::OutOfRoom => {
                return Err((
                    refused(Code::OutputLimit, "the result is too large"),
                    String::new(),
                ));
            }
        };
        let crashed = || SandboxError::crashed("the parser crashed on this file");
        let error = match (
            status.code(),
            status.signal().and_then(Signal::from_named_raw),
        ) {
            (Some(code), _) if code == i32::from(exit::DONE) => match String::from_utf8(output) {
                Ok(output) => return Ok(output),
                Err(_) => crashed(),
            },
            (Some(code), _) if code == i32::from(exit::REFUSED) => {
                serde_json::from_slice::<Failure>(&output)
                    .map_or_else(|_| crashed(), SandboxError::Refused)
            }
            (_, Some(Signal::XCPU)) => {
                refused(Code::TimeLimit, "the file took too much processor time")
            }
            // Rust ends the process when an allocation fails, and says so.
            (_, Some(Signal::ABORT)) if stderr.contains("memory allocation of") => {
                refused(Code::MemoryLimit, "the file needs more memory than allowed")
            }
            (_, Some(Signal::KILL | Signal::TERM | Signal::INT | Signal::HUP)) => {
                SandboxError::Killed
            }
            _ => crashed(),
        };
        Err((error, stderr))
    }
}
