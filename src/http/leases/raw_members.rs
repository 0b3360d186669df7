//! The members of a JSON object as they are written: a result keeps its bytes.

use std::fmt;

use serde::de::{Deserialize, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::http::code::Code;
use crate::http::problem::Problem;

pub struct RawMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'a> RawMembers<'a> {
    /// Members that occur twice are refused, as everywhere.
    pub fn read(text: &'a [u8]) -> Result<Self, Problem> {
        let invalid = |detail: String| Problem::new(Code::InvalidJson, detail);
        let text =
            std::str::from_utf8(text).map_err(|_| invalid("the text is not UTF-8".into()))?;
        if !text.trim_start().starts_with('{') {
            serde_json::from_str::<&RawValue>(text).map_err(|error| invalid(error.to_string()))?;
            return Err(Problem::invalid("", "must be an object"));
        }
        serde_json::from_str(text).map_err(|error| invalid(error.to_string()))
    }

    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The names of those that were not taken.
    pub fn rest(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawMembers<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::<(String, &RawValue)>::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(serde::de::Error::custom("there are too many members"));
                    }
                    if members.iter().any(|(known, _)| *known == name) {
                        let shown: String = name.chars().take(64).collect();
                        return Err(serde::de::Error::custom(format_args!(
                            "member {shown:?} occurs twice"
                        )));
                    }
                    members.push((name, value));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members).map(RawMembers)
    }
}

/// Far more than any body has.
const MEMBERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_bytes_and_occur_once() {
        let mut members = RawMembers::read(br#" {"a":  [1.50, "\u00e9"] , "b": 2}"#).unwrap();
        assert_eq!(members.take("a").unwrap().get(), r#"[1.50, "\u00e9"]"#);
        assert!(members.take("a").is_none());
        assert_eq!(members.rest().collect::<Vec<_>>(), ["b"]);
        for (text, code) in [
            (&b"[]"[..], Code::ValidationFailed),
            (b"3", Code::ValidationFailed),
            (b"", Code::InvalidJson),
            (b"{", Code::InvalidJson),
            (b"{\"a\": 1} x", Code::InvalidJson),
            (b"{\"a\": 1, \"a\": 2}", Code::InvalidJson),
            (b"{\"a\": \xff}", Code::InvalidJson),
        ] {
            let problem = RawMembers::read(text).err().unwrap();
            assert_eq!(problem.code(), code, "{text:?}");
        }
    }
}
