//! Why the service does not start.

/// One text for the operator: what is wrong, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub fn new(text: impl Into<String>) -> Self {
        ConfigError(text.into())
    }

    /// Says where it was written, in front of the text.
    pub fn at(self, place: &str) -> Self {
        ConfigError(format!("{place}: {}", self.0))
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
        Some(nearest) => ConfigError(format!("{text}; did you mean `{nearest}`?")),
        None => ConfigError(text),
    }
}
