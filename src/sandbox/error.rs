use crate::parsers::{Code, Failure};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The file, or what became of it, says no.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// Something outside ended the child, such as the system when it runs out of memory.
    #[error("the parser was ended from outside")]
    Killed,
    /// The child could not be started or spoken to.
    #[error("the parser could not be started")]
    Start(#[source] std::io::Error),
}

impl SandboxError {
    pub fn crashed(message: &str) -> Self {
        Self::Refused(Failure::new(Code::Crashed, message))
    }

    /// Whether another attempt would end the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused(failure) => failure.is_permanent(),
            Self::Killed | Self::Start(_) => false,
        }
    }

    /// For the task's error: a word, as in `"code": "encrypted"`. The text is this error's `Display`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(failure) => failure.code.name(),
            Self::Killed => "killed",
            Self::Start(_) => "sandbox-unavailable",
        }
    }
}
