//! `Prefer` (RFC 7240): how long a client would like to wait for the end of its task.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::unquoted;

pub const PREFER: HeaderName = HeaderName::from_static("prefer");
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preference that the service knows. Others, and values that make no sense, are ignored, as
/// section 2 demands; `respond-async` is what happens anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// Seconds, at most [`Prefer::WAIT_SECONDS_MAX`].
    pub wait_seconds: Option<u64>,
}

impl Prefer {
    /// Proxies commonly cut a silent request after 60 s.
    pub const WAIT_SECONDS_MAX: u64 = 50;

    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Prefer::default();
        let mut seen = Vec::new();
        for value in headers.get_all(PREFER) {
            let Ok(value) = value.to_str() else { continue };
            for preference in unquoted::split(value, ',') {
                let (name, value) = name_and_value(preference);
                // Of a preference that is given twice, the first one counts.
                if seen.contains(&name) {
                    continue;
                }
                if name == "wait" {
                    prefer.wait_seconds = seconds(&value);
                }
                seen.push(name);
            }
        }
        prefer
    }

    pub fn wait(&self) -> Option<Duration> {
        self.wait_seconds.map(Duration::from_secs)
    }

    /// The value of `Preference-Applied`; `waited` says whether the wait was granted.
    pub fn applied(&self, waited: bool) -> Option<HeaderValue> {
        let wait = self.wait_seconds.filter(|_| waited);
        let text = format!("wait={}", wait?);
        HeaderValue::try_from(text).ok()
    }
}

fn name_and_value(preference: &str) -> (String, String) {
    let parts = unquoted::split(preference, ';');
    let first = parts.first().copied().unwrap_or_default();
    let (name, value) = first.split_once('=').unwrap_or((first, ""));
    let value = unquoted::unquote(value.trim());
    (name.trim().to_ascii_lowercase(), value)
}

fn seconds(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // What does not fit into a number is certainly above the bound.
    let seconds = text.parse().unwrap_or(u64::MAX);
    Some(seconds.min(Prefer::WAIT_SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_str(value).unwrap());
        }
        Prefer::of(&headers)
    }

    #[test]
    fn waits_are_read_in_every_spelling_and_capped() {
        assert_eq!(of(&["wait=5"]).wait_seconds, Some(5));
        assert_eq!(of(&["Wait = \"5\"; x=y"]).wait_seconds, Some(5));
        assert_eq!(
            of(&["handling=lenient", "foo; a=\"b,wait=3\", wait=7"]).wait_seconds,
            Some(7)
        );
        assert_eq!(of(&["wait=50000000000000000000000"]).wait_seconds, Some(50));
        assert_eq!(of(&["wait=3, wait=9"]).wait_seconds, Some(3));
        for ignored in [
            "",
            "wait",
            "wait=",
            "wait=-1",
            "wait=1.5",
            "waiting=4",
            "wait=+4",
        ] {
            assert_eq!(of(&[ignored]), Prefer::default(), "{ignored}");
        }
    }

    #[test]
    fn what_was_applied_is_said() {
        assert_eq!(
            of(&["respond-async, wait=10"]).applied(true).unwrap(),
            "wait=10"
        );
        assert_eq!(of(&["wait=70"]).applied(true).unwrap(), "wait=50");
        assert_eq!(of(&["wait=70"]).applied(false), None);
    }
}
