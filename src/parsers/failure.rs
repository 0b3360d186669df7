use serde::{Deserialize, Serialize};

/// Why a file could not be processed. Every one is permanent, save [`Code::Unreadable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The content is damaged, or empty.
    Unparseable,
    /// A password is needed.
    Encrypted,
    /// An archive has too many entries, or unpacks to too much.
    ArchiveLimit,
    /// A format that is not supported, or not by this kind of task.
    UnsupportedFormat,
    /// More memory was needed than the sandbox allows.
    MemoryLimit,
    /// More time was needed than the sandbox allows.
    TimeLimit,
    /// The result is larger than allowed.
    OutputLimit,
    /// The parser ended without a result.
    Crashed,
    /// The task's params are wrong.
    InvalidParams,
    /// The file could not be read: trouble on our side, so another attempt may succeed.
    Unreadable,
}

impl Code {
    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unparseable => "unparseable",
            Self::Encrypted => "encrypted",
            Self::ArchiveLimit => "archive-limit",
            Self::UnsupportedFormat => "unsupported-format",
            Self::MemoryLimit => "memory-limit",
            Self::TimeLimit => "time-limit",
            Self::OutputLimit => "output-limit",
            Self::Crashed => "crashed",
            Self::InvalidParams => "invalid-params",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A refusal. `message` is for people: it holds no path, no internal text and nothing of the file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub fn unparseable(message: impl Into<String>) -> Self {
        Self::new(Code::Unparseable, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::UnsupportedFormat, message)
    }

    pub fn params(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidParams, message)
    }

    pub fn is_permanent(&self) -> bool {
        self.code != Code::Unreadable
    }
}

/// Reading the opened file failed. Decoders wrap damaged content in the same type, so `InvalidData` and
/// `UnexpectedEof` count as damage, and everything else as trouble on our side.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) if matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => {
                Self::unparseable("the file is damaged or cut short")
            }
            Err(_) => Self::new(Code::Unreadable, "the file could not be read"),
        }
    }
}

/// Lets a failure pass through code that only knows I/O errors; the conversion above takes it out again.
impl From<Failure> for std::io::Error {
    fn from(failure: Failure) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, failure)
    }
}
