//! Lists in header fields, whose separators do not count within quotes.

/// The parts of `text` between `separator`, trimmed; a quoted string (RFC 9110 section 5.6.4) stays
/// in one piece.
pub fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                parts.push(text[start..at].trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// A token as it is, a quoted string without its quotes and escapes.
pub fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let (mut text, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_within_quotes_do_not_count() {
        assert_eq!(split(r#"a, "b,\",c" ,d"#, ','), ["a", r#""b,\",c""#, "d"]);
        assert_eq!(split("", ','), [""]);
        assert_eq!(unquote(r#""b\"\\c""#), r#"b"\c"#);
        assert_eq!(unquote("token"), "token");
    }
}
