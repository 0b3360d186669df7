//! Sizes of trials, which the environment may change.

/// The variable, else the usual value.
pub fn setting(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a whole number")),
        Err(_) => usual,
    }
}
