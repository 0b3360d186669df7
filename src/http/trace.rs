//! `traceparent` (W3C Trace Context), continued when it is valid.

use axum::http::HeaderMap;

/// The caller's trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// 32 lower-case hexadecimal digits.
    pub trace_id: String,
    /// 16 lower-case hexadecimal digits: the caller's span.
    pub parent_id: String,
    pub flags: u8,
}

impl TraceContext {
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut sent = headers.get_all("traceparent").iter();
        let (Some(value), None) = (sent.next(), sent.next()) else {
            return None;
        };
        Self::parse(value.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = hexadecimal(parts.next()?, 2)?;
        let trace_id = hexadecimal(parts.next()?, 32)?;
        let parent_id = hexadecimal(parts.next()?, 16)?;
        let flags = hexadecimal(parts.next()?, 2)?;
        let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
        // Later versions may append to this form; version 00 has nothing after it.
        let has_more = parts.next().is_some();
        if version == "ff"
            || (version == "00" && has_more)
            || is_zero(trace_id)
            || is_zero(parent_id)
        {
            return None;
        }
        Some(TraceContext {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
            flags: u8::from_str_radix(flags, 16).ok()?,
        })
    }
}

fn hexadecimal(text: &str, length: usize) -> Option<&str> {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == length && text.bytes().all(is_digit)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_contexts_are_continued() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let context = TraceContext::parse(&format!("00-{id}-00f067aa0ba902b7-01"));
        assert_eq!(context.as_ref().map(|c| c.trace_id.as_str()), Some(id));
        assert_eq!(context.map(|c| c.flags), Some(1));
        assert!(TraceContext::parse(&format!("01-{id}-00f067aa0ba902b7-01-more")).is_some());
        for bad in [
            "".to_owned(),
            format!("ff-{id}-00f067aa0ba902b7-01"),
            format!("00-{id}-00f067aa0ba902b7-01-more"),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
            format!("00-{id}-00f067aa0ba902b7"),
        ] {
            assert_eq!(TraceContext::parse(&bad), None, "{bad}");
        }
    }
}
