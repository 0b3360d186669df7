//! Why there is no answer.

use std::error::Error;

use super::rules::Refusal;

/// The texts are for clients: they say nothing about the network around this process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// No packet left for this address.
    #[error("the URL {0}")]
    Refused(#[from] Refusal),
    #[error("there are more than {0} redirects")]
    TooManyRedirects(usize),
    #[error("the redirect leads to no address")]
    BadRedirect,
    #[error("the head of the answer is too large")]
    HeadTooLarge,
    /// In bytes.
    #[error("the answer is larger than {0} bytes")]
    BodyTooLarge(usize),
    #[error("the answer is packed in a way that was not asked for")]
    UnknownEncoding,
    #[error("the packed answer is damaged")]
    Damaged,
    #[error("the answer could not be kept")]
    NotKept,
    #[error("the answer took too long")]
    TimedOut,
    #[error("the host's name cannot be resolved")]
    Unresolved,
    #[error("the connection could not be made, or broke")]
    Broken,
}

impl EgressError {
    /// A kebab-case word that programs can tell errors apart by.
    pub fn code(&self) -> &'static str {
        match self {
            EgressError::Refused(_) => "address-refused",
            EgressError::TooManyRedirects(_) | EgressError::BadRedirect => "redirect-refused",
            EgressError::HeadTooLarge | EgressError::BodyTooLarge(_) => "response-too-large",
            EgressError::UnknownEncoding | EgressError::Damaged => "response-unreadable",
            EgressError::NotKept => "response-not-kept",
            EgressError::TimedOut => "request-timeout",
            EgressError::Unresolved => "host-unknown",
            EgressError::Broken => "connection-failed",
        }
    }

    /// Whether another attempt could not help.
    pub fn is_permanent(&self) -> bool {
        match self {
            EgressError::Refused(_)
            | EgressError::TooManyRedirects(_)
            | EgressError::BadRedirect
            | EgressError::HeadTooLarge
            | EgressError::BodyTooLarge(_)
            | EgressError::UnknownEncoding => true,
            // A body that was cut short looks damaged, too.
            EgressError::Damaged
            | EgressError::NotKept
            | EgressError::TimedOut
            | EgressError::Unresolved
            | EgressError::Broken => false,
        }
    }
}

/// The reason is somewhere among the causes.
impl From<reqwest::Error> for EgressError {
    fn from(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if let Some(ours) = error.downcast_ref::<EgressError>() {
                return ours.clone();
            }
            if let Some(parsed) = error.downcast_ref::<hyper::Error>()
                && parsed.is_parse_too_large()
            {
                return EgressError::HeadTooLarge;
            }
            cause = error.source();
        }
        tracing::debug!(
            error = &error as &dyn Error,
            "a request that goes out failed"
        );
        match error.is_timeout() {
            true => EgressError::TimedOut,
            false => EgressError::Broken,
        }
    }
}
