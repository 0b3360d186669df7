//! Why the service does not start.

/// One text for the operator: what is wrong, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConfigError {
    text: String,
    /// The member of a table that is wrong, such as `retry.jitter`, until its line is said.
    member: Option<&'static str>,
}

impl ConfigError {
    pub fn new(text: impl Into<String>) -> Self {
        ConfigError {
            text: text.into(),
            member: None,
        }
    }

    /// Says where it was written, in front of the text.
    pub fn at(self, place: &str) -> Self {
        ConfigError {
            text: format!("{place}: {}", self.text),
            ..self
        }
    }

    /// Says which member of a table it is about, unless that is said more closely already.
    pub fn of(self, member: &'static str) -> Self {
        ConfigError {
            member: self.member.or(Some(member)),
            ..self
        }
    }

    pub fn member(&self) -> Option<&'static str> {
        self.member
    }
}

/// `text`, and the name that was probably meant when one is near to `name`.
pub fn with_suggestion<'a>(
    text: String,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> ConfigError {
    let distance = |other: &&str| strsim::damerau_levenshtein(name, other);
    let nearest = known.into_iter().min_by_key(distance);
    match nearest.filter(|other| distance(other) <= name.len().max(other.len()) / 2) {
        Some(nearest) => ConfigError::new(format!("{text}; did you mean `{nearest}`?")),
        None => ConfigError::new(text),
    }
}
