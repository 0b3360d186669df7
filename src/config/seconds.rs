//! Spans of time as operators write them: seconds, with decimals if they like.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A span of 0 to 100 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Seconds {
    const MAX: f64 = 100.0 * 366.0 * 86_400.0;

    pub fn parse(text: &str) -> Option<Self> {
        Self::new(text.parse().ok()?)
    }

    fn new(seconds: f64) -> Option<Self> {
        (0.0..=Self::MAX)
            .contains(&seconds)
            .then(|| Seconds(Duration::from_secs_f64(seconds)))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Self::new(seconds).ok_or_else(|| serde::de::Error::custom("not a number of seconds"))
    }
}
