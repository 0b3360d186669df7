//! Files that users have uploaded.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Sha256Digest;

/// A file of a submission or task. The name is what the client called it, cleaned; it is never
/// used to find the bytes or to tell their type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// The multipart part that carried it, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    pub sha256: Sha256Digest,
    /// In bytes.
    pub size: u64,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub media_type: Option<String>,
    /// Which stored copy holds the bytes; decided in the step that admits the submission.
    #[serde(default)]
    pub generation: Option<Generation>,
}

impl File {
    pub fn blob(&self) -> Option<BlobName> {
        let generation = self.generation.clone()?;
        Some(BlobName {
            sha256: self.sha256,
            generation,
        })
    }
}

/// A random word that tells two stored copies of the same bytes apart. One that was given up is
/// never used again, so that clean-up cannot take a file from under a new submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(String);

impl Generation {
    pub fn random() -> Self {
        Generation(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let valid =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Generation(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a stored copy: what it holds, and which copy it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobName {
    pub sha256: Sha256Digest,
    pub generation: Generation,
}

impl BlobName {
    pub fn parse(text: &str) -> Option<Self> {
        let (sha256, generation) = text.split_once('-')?;
        Some(BlobName {
            sha256: Sha256Digest::parse_hex(sha256)?,
            generation: Generation::parse(generation)?,
        })
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.sha256, self.generation.as_str())
    }
}

/// Bytes that a file name may have.
pub const FILE_NAME_BYTES_MAX: usize = 255;

/// Makes a client's file name harmless: the last path component, without control characters and
/// direction overrides, cut to 255 bytes. `None` when nothing is left.
pub fn clean_file_name(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut clean: String = last.chars().filter(|&c| !hidden(c)).collect();
    while clean.len() > FILE_NAME_BYTES_MAX {
        clean.pop();
    }
    let clean = clean.trim();
    (!clean.is_empty() && clean != "." && clean != "..").then(|| clean.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_cleaned_and_never_refused() {
        let clean = |name: &str| clean_file_name(name);
        assert_eq!(clean("data.csv").as_deref(), Some("data.csv"));
        assert_eq!(clean("../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(clean(r"C:\temp\a.txt").as_deref(), Some("a.txt"));
        assert_eq!(clean("a\0b\r\n\u{202e}c").as_deref(), Some("abc"));
        assert_eq!(clean("<script>").as_deref(), Some("<script>"));
        assert_eq!(clean(&"é".repeat(4096)).unwrap().len(), 254);
        for nothing in ["", "..", "a/..", "/", "\u{7}"] {
            assert_eq!(clean(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn blob_names_go_there_and_back() {
        let name = BlobName {
            sha256: Sha256Digest::of(b"x"),
            generation: Generation::random(),
        };
        assert_eq!(BlobName::parse(&name.to_string()), Some(name));
        assert_eq!(BlobName::parse("../x-y"), None);
    }
}
