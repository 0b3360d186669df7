//! JSON as the service accepts it: no reading in which two parties could disagree.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Levels of arrays and objects that `params` may have.
pub const PARAMS_DEPTH_MAX: usize = 64;

/// Integers beyond this (2^53) do not survive a reader that holds numbers as doubles.
const INTEGER_MAX: u64 = 1 << 53;

/// Why a text is not acceptable JSON; the text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Reads one JSON text of at most `depth_max` levels.
///
/// Refused, where most readers fold silently: members that occur twice, lone surrogates, and
/// numbers that a double cannot hold (integers beyond 2^53, 1e400). RFC 8785 builds on the same
/// restrictions (I-JSON, RFC 7493).
pub fn parse(text: &[u8], depth_max: usize) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(text).map_err(|_| JsonError("the text is not UTF-8".into()))?;
    refuse_inexact_numbers(text)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { levels: depth_max }
        .deserialize(&mut reader)
        .and_then(|value| {
            reader.end()?;
            Ok(value)
        });
    value.map_err(|error| JsonError(error.to_string()))
}

/// The RFC 8785 form of a value.
pub fn canonical(value: &Value) -> Vec<u8> {
    let written = match is_plain(value) {
        true => serde_json::to_vec(value),
        false => serde_json_canonicalizer::to_vec(value),
    };
    // Only a map with keys that are not strings could fail, and a `Value` has none.
    written.unwrap_or_default()
}

/// Whether what serde_json writes is the canonical form already, at a tenth of the cost. Its members are in
/// the order of their bytes, which is that of UTF-16 while they are ASCII, and an integer that a double
/// holds exactly is written in full. Other numbers have other spellings.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number
            .as_i64()
            .is_some_and(|number| number.unsigned_abs() <= INTEGER_MAX),
        Value::Array(items) => items.iter().all(is_plain),
        Value::Object(members) => members
            .iter()
            .all(|(name, value)| name.is_ascii() && is_plain(value)),
    }
}

/// Whether this is a JSON pointer (RFC 6901) to a member of something.
pub fn is_pointer(text: &str) -> bool {
    let escapes_are_whole = || {
        let mut parts = text.split('~').skip(1);
        parts.all(|part| part.starts_with(['0', '1']))
    };
    text.len() > 1 && text.starts_with('/') && escapes_are_whole()
}

/// The JSON Pointer (RFC 6901) of member `name` below `parent`.
pub fn pointer(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

struct Strict {
    levels: usize,
}

impl Strict {
    fn below<E: serde::de::Error>(&self) -> Result<Strict, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Strict { levels }),
            None => Err(E::custom("the text is nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        let levels = self.below::<A::Error>()?.levels;
        while let Some(item) = items.next_element_seed(Strict { levels })? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let levels = self.below::<A::Error>()?.levels;
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                let shown: String = name.chars().take(64).collect();
                return Err(serde::de::Error::custom(format_args!(
                    "member {shown:?} occurs twice"
                )));
            }
            let value = members.next_value_seed(Strict { levels })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Finds numbers whose value a double would change. Looks only at the characters of numbers
/// outside of strings; whether the text is JSON at all is for the reader to say.
fn refuse_inexact_numbers(text: &str) -> Result<(), JsonError> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
                let length = bytes[at..].iter().take_while(|b| is_number(b)).count();
                if changes_as_double(&text[at..at + length]) {
                    return Err(JsonError(
                        "a number is too large to be held exactly: integers end at 2^53".into(),
                    ));
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn changes_as_double(number: &str) -> bool {
    const SAFE_DIGITS: usize = 15;
    if number.len() <= SAFE_DIGITS && !number.contains(['e', 'E']) {
        return false;
    }
    let Ok(value) = number.parse::<f64>() else {
        return false;
    };
    if value.abs() <= INTEGER_MAX as f64 && !integer_beyond(number) {
        return false;
    }
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let written_as_integer = !number.contains(['.', 'e', 'E']);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    written_as_integer || digits.trim_matches('0').len() > SAFE_DIGITS
}

/// 2^53 + 1 and its like round to 2^53 as doubles, so they are compared as integers.
fn integer_beyond(number: &str) -> bool {
    let digits = number
        .trim_start_matches('-')
        .split(['.', 'e', 'E'])
        .next()
        .unwrap_or_default();
    digits
        .parse::<u64>()
        .map_or(true, |value| value > INTEGER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, JsonError> {
        parse(text.as_bytes(), PARAMS_DEPTH_MAX)
    }

    #[test]
    fn plain_json_is_read_as_it_is() {
        let text = r#" {"a": [1, -2.5, "x\n\ud83d\ude00", null, true], "9007199254740993": {}, "n": 9007199254740992} "#;
        let value = json!({"a": [1, -2.5, "x\n😀", null, true], "9007199254740993": {}, "n": 9_007_199_254_740_992_u64});
        assert_eq!(read(text), Ok(value));
        assert_eq!(read("1e22"), Ok(json!(1e22)));
        assert_eq!(
            read("0.1234567890123456789"),
            Ok(json!(0.123_456_789_012_345_68))
        );
    }

    #[test]
    fn whatever_two_readers_could_read_differently_is_refused() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{}x",
            "nul",
            "1 2",
            "\u{feff}{}",
            r#"{"a":1,"a":2}"#,
            r#"{"x":{"a":1,"\u0061":2}}"#,
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            "1e400",
            "-1e400",
            "9007199254740993",
            "-9007199254740993",
            "18446744073709551616",
            "123456789012345678901234567890",
            "9007199254740993.0",
            "9007199254740993e0",
            "01",
            "NaN",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(parse(b"\"\xff\"", 64).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = || prop_oneof!["[ -~]{0,6}", any::<String>()];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-9_007_199_254_740_993..9_007_199_254_740_993_i64).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            let member = (text(), inner.clone());
            prop_oneof![
                vec(inner, 0..4).prop_map(Value::from),
                vec(member, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_short_way_to_the_canonical_form_ends_where_the_long_one_does(value in any_value()) {
            let long_way = serde_json_canonicalizer::to_vec(&value).unwrap();
            prop_assert_eq!(canonical(&value), long_way);
        }
    }

    #[test]
    fn plain_values_are_canonical_as_they_are_written() {
        let value =
            json!({"b": [1, -2, "\u{1f}\u{7f}\"\\/\u{8}\u{c}é"], "a": {"Z": null, "_": true}});
        assert!(is_plain(&value));
        assert_eq!(
            canonical(&value),
            serde_json_canonicalizer::to_vec(&value).unwrap()
        );
        for other in [json!(1.0), json!(-0.0), json!({"é": 1}), json!(1_i64 << 54)] {
            assert!(!is_plain(&other), "{other}");
        }
    }

    #[test]
    fn depth_is_counted_in_arrays_and_objects() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(64)).is_ok());
        assert!(read(&nested(65)).is_err());
        assert!(read(&nested(100_000)).is_err());
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(pointer("/params", "a/b~c"), "/params/a~1b~0c");
    }
}
