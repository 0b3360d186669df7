//! The items of a batch, told apart without reading them.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::http::code::Code;
use crate::http::media_type::ItemsForm;
use crate::http::problem::Problem;

/// The texts of at most `max` items, each to be read by itself, so that one that cannot be read harms no other.
/// Lines without any text are passed over.
pub fn of_batch(text: &[u8], form: ItemsForm, max: usize) -> Result<Vec<&[u8]>, Problem> {
    if text.is_empty() {
        return Err(Problem::new(Code::InvalidJson, "The body is empty."));
    }
    match form {
        ItemsForm::Json => of_array(text, max),
        ItemsForm::NdJson => of_lines(text, max),
    }
}

fn of_lines(text: &[u8], max: usize) -> Result<Vec<&[u8]>, Problem> {
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut items = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        if items.len() == max {
            return Err(too_many(max));
        }
        items.push(line);
    }
    Ok(items)
}

fn of_array(text: &[u8], max: usize) -> Result<Vec<&[u8]>, Problem> {
    let invalid = |detail: String| Problem::new(Code::InvalidJson, detail);
    let text = std::str::from_utf8(text).map_err(|_| invalid("the text is not UTF-8".into()))?;
    if !text.trim_ascii_start().starts_with('[') {
        return Err(invalid("A batch is an array of submissions.".into()));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_seq(Items { max });
    match read.and_then(|items| items.map_or(Ok(None), |items| reader.end().map(|()| Some(items))))
    {
        Ok(Some(items)) => Ok(items),
        Ok(None) => Err(too_many(max)),
        Err(error) => Err(invalid(error.to_string())),
    }
}

fn too_many(max: usize) -> Problem {
    let detail = format!("A batch has at most {max} items.");
    Problem::new(Code::PayloadTooLarge, detail)
}

/// Reads an array; none when there are more than `max`, and the rest was not kept.
struct Items {
    max: usize,
}

impl<'de> Visitor<'de> for Items {
    type Value = Option<Vec<&'de [u8]>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of submissions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element::<&RawValue>()? {
            items.push(item.get().as_bytes());
            if items.len() > self.max {
                while array.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
        }
        Ok(Some(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, form: ItemsForm) -> Result<Vec<String>, Code> {
        let items = of_batch(text.as_bytes(), form, 3).map_err(|problem| problem.code())?;
        let text = |item: &[u8]| String::from_utf8(item.to_vec()).unwrap();
        Ok(items.into_iter().map(text).collect())
    }

    #[test]
    fn items_of_an_array_are_read_one_by_one() {
        let array = |text: &str| read(text, ItemsForm::Json);
        assert_eq!(array(" [ ] "), Ok(vec![]));
        let text = r#"[{"a":1,"a":2}, "x", 3]"#;
        assert_eq!(
            array(text),
            Ok(vec![r#"{"a":1,"a":2}"#.into(), "\"x\"".into(), "3".into()])
        );
        let nested = format!("[{}{}]", "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(array(&nested).unwrap().len(), 1);
        for bad in ["", "{}", "[1", "[1,]", "[1] x", "[1 2]", "\"[]\"", "[{]"] {
            assert_eq!(array(bad), Err(Code::InvalidJson), "{bad}");
        }
        assert_eq!(array("[1,2,3,4,5]"), Err(Code::PayloadTooLarge));
    }

    #[test]
    fn lines_are_items_whatever_they_hold() {
        let lines = |text: &str| read(text, ItemsForm::NdJson);
        assert_eq!(
            lines("{}\r\n\n{broken\n 1 \n\n"),
            Ok(vec!["{}".into(), "{broken".into(), "1".into()])
        );
        assert_eq!(lines("\n"), Ok(vec![]));
        assert_eq!(lines(""), Err(Code::InvalidJson));
        assert_eq!(lines("1\n2\n3\n4"), Err(Code::PayloadTooLarge));
        assert_eq!(of_batch(b"\xff\n1", ItemsForm::NdJson, 3).unwrap().len(), 2);
    }
}
