//! The client's name for one intent.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A valid `Idempotency-Key`: 1 to 255 characters after unquoting, compared byte by byte.
///
/// Both spellings of the header name the same key (RFC 9651 String, or bare
/// `[A-Za-z0-9._~:+/=@-]`), so that a client that changes its library keeps its keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct IdempotencyKey(Arc<str>);

/// Why a header value is no key; the text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key is empty")]
    Empty,
    #[error("the key is longer than 255 characters")]
    TooLong,
    #[error("the key is not a valid RFC 9651 String: printable ASCII in double quotes")]
    Quoting,
    #[error("an unquoted key may hold only the characters A-Z a-z 0-9 . _ ~ : + / = @ -")]
    Character,
}

impl IdempotencyKey {
    pub const LENGTH_MAX: usize = 255;

    /// Reads a header field value.
    pub fn parse(value: &[u8]) -> Result<Self, KeyError> {
        let value = value.trim_ascii();
        let text = match value.first() {
            None => return Err(KeyError::Empty),
            Some(b'"') => unquote(value)?,
            Some(_) => bare(value)?,
        };
        match text.len() {
            0 => Err(KeyError::Empty),
            1..=Self::LENGTH_MAX => Ok(IdempotencyKey(text.into())),
            _ => Err(KeyError::TooLong),
        }
    }

    /// The key of the item at `index` of a batch that carries this one: `{key}/{index}`.
    pub fn of_item(&self, index: usize) -> Result<Self, KeyError> {
        let text = format!("{}/{index}", self.0);
        match text.len() {
            ..=Self::LENGTH_MAX => Ok(IdempotencyKey(text.into())),
            _ => Err(KeyError::TooLong),
        }
    }

    /// The service's own key for something that it submits itself. Clients' keys are ASCII, so that none is like it.
    pub fn of_service(kind: &str, name: &str) -> Self {
        IdempotencyKey(format!("§{kind}/{name}").into())
    }

    /// A key that a store hands back: it was valid when it went in.
    pub fn from_store(text: &str) -> Self {
        IdempotencyKey(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn bare(value: &[u8]) -> Result<String, KeyError> {
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"._~:+/=@-".contains(b);
    if !value.iter().all(legal) {
        return Err(KeyError::Character);
    }
    Ok(value.iter().map(|&b| char::from(b)).collect())
}

/// RFC 9651 section 4.2.5, with parameters (section 4.2.3.2) read and ignored.
fn unquote(value: &[u8]) -> Result<String, KeyError> {
    let mut text = String::new();
    let mut bytes = value[1..].iter();
    loop {
        match bytes.next() {
            Some(b'"') => break,
            Some(b'\\') => match bytes.next() {
                Some(b @ (b'"' | b'\\')) => text.push(char::from(*b)),
                _ => return Err(KeyError::Quoting),
            },
            Some(b @ 0x20..=0x7e) => text.push(char::from(*b)),
            _ => return Err(KeyError::Quoting),
        }
    }
    let rest = bytes.as_slice();
    if parameters_follow(rest) {
        Ok(text)
    } else {
        Err(KeyError::Quoting)
    }
}

/// Whether `rest` is nothing, or parameters such as `;a;b=1;c="x"` without a quoted semicolon.
fn parameters_follow(rest: &[u8]) -> bool {
    if rest.is_empty() {
        return true;
    }
    let Some(rest) = rest.strip_prefix(b";") else {
        return false;
    };
    rest.split(|&b| b == b';').all(|parameter| {
        let name = parameter.trim_ascii_start();
        let name = name.split(|&b| b == b'=').next().unwrap_or_default();
        let starts = name
            .first()
            .is_some_and(|b| b.is_ascii_lowercase() || *b == b'*');
        let legal = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(b);
        starts
            && name.iter().all(legal)
            && parameter
                .iter()
                .all(|b| (0x20..0x7f).contains(b) && *b != b',')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Result<String, KeyError> {
        IdempotencyKey::parse(value.as_bytes()).map(|k| k.as_str().to_owned())
    }

    #[test]
    fn both_spellings_name_the_same_key() {
        assert_eq!(key("order-42"), Ok("order-42".into()));
        assert_eq!(key("\"order-42\""), Ok("order-42".into()));
        assert_eq!(key(" \"order-42\";v=1 "), Ok("order-42".into()));
        assert_eq!(key(r#""a\"b\\c d""#), Ok(r#"a"b\c d"#.into()));
        assert_eq!(key(&"k".repeat(255)), Ok("k".repeat(255)));
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!(key(""), Err(KeyError::Empty));
        assert_eq!(key("\"\""), Err(KeyError::Empty));
        assert_eq!(key(&"k".repeat(256)), Err(KeyError::TooLong));
        assert_eq!(
            key(&format!("\"{}\"", "k".repeat(256))),
            Err(KeyError::TooLong)
        );
        for bad in ["a b", "a,b", "{}", "ключ", "a\"b", "a\tb"] {
            assert_eq!(key(bad), Err(KeyError::Character), "{bad:?}");
        }
        for bad in [
            "\"a",
            "\"a\\x\"",
            "\"ü\"",
            "\"a\", \"b\"",
            "\"a\"b",
            "\"a\";A",
            "\"a\r\n\"",
        ] {
            assert_eq!(key(bad), Err(KeyError::Quoting), "{bad:?}");
        }
    }
}
