//! `Content-Disposition`: file names on their way out and in.

use axum::http::{HeaderMap, HeaderValue, header};

use super::unquoted;

/// Download, never show: `attachment` with the name in both forms of RFC 6266, the second one in
/// full (RFC 8187) whenever the first one had to leave something out.
pub fn attachment(name: Option<&str>) -> HeaderValue {
    let plain = HeaderValue::from_static("attachment");
    let Some(name) = name else { return plain };
    let ascii: String = name.chars().map(plain_or_underscore).collect();
    let mut text = format!("attachment; filename=\"{ascii}\"");
    if ascii != name {
        text.push_str("; filename*=UTF-8''");
        name.bytes().for_each(|byte| push_extended(&mut text, byte));
    }
    HeaderValue::try_from(text).unwrap_or(plain)
}

/// The `filename*` of a part; multipart readers know the plain `filename` only.
pub fn extended_file_name(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_DISPOSITION)?;
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    let mut parameters = unquoted::split(text, ';').into_iter();
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let found = name.trim().eq_ignore_ascii_case("filename*");
        found.then_some(value.trim())
    })?;
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    String::from_utf8(percent_decode(encoded)?).ok()
}

fn plain_or_underscore(c: char) -> char {
    let plain = c.is_ascii() && !c.is_ascii_control() && !matches!(c, '"' | '\\' | '%');
    if plain { c } else { '_' }
}

/// `attr-char` of RFC 8187 as it is, all else percent-encoded.
fn push_extended(text: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
        text.push(char::from(byte));
    } else {
        text.push_str(&format!("%{byte:02X}"));
    }
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        };
        bytes.push(decoded);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_out_in_a_form_that_every_client_reads() {
        assert_eq!(attachment(None), "attachment");
        assert_eq!(
            attachment(Some("data 1.csv")),
            "attachment; filename=\"data 1.csv\""
        );
        assert_eq!(
            attachment(Some("naïve \"€\".txt")),
            "attachment; filename=\"na_ve ___.txt\"; filename*=UTF-8''na%C3%AFve%20%22%E2%82%AC%22.txt"
        );
    }

    #[test]
    fn extended_names_are_read() {
        let name = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(value));
            extended_file_name(&headers)
        };
        let both = "form-data; name=\"file\"; filename=\"a;b\"; FILENAME*=utf-8'en'%e2%82%ac.txt";
        assert_eq!(name(both).as_deref(), Some("€.txt"));
        assert_eq!(name("form-data; filename*=latin1''x"), None);
        assert_eq!(name("form-data; filename*=UTF-8''%e"), None);
        assert_eq!(name("form-data; filename*=UTF-8''%ff"), None);
        assert_eq!(name("form-data; filename=\"a\""), None);
    }
}
