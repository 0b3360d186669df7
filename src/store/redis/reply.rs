//! Answers of scripts, read word by word.

use std::str::FromStr;

use redis::Value;

use super::step::unavailable;
use crate::store::StoreError;

/// The rest of an answer.
pub struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    pub fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(items) | Value::Set(items) => Ok(Reply(items.into_iter())),
            Value::Map(pairs) => {
                let flat: Vec<_> = pairs.into_iter().flat_map(|(k, v)| [k, v]).collect();
                Ok(Reply(flat.into_iter()))
            }
            _ => Err(senseless()),
        }
    }

    pub fn value(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(senseless)
    }

    pub fn is_over(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    pub fn part(&mut self) -> Result<Reply, StoreError> {
        self.value().and_then(Reply::of)
    }

    /// `None` for nil.
    pub fn text(&mut self) -> Result<Option<String>, StoreError> {
        match self.value()? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| senseless()),
            Value::SimpleString(text) => Ok(Some(text)),
            Value::Int(number) => Ok(Some(number.to_string())),
            Value::Double(number) => Ok(Some(number.to_string())),
            _ => Err(senseless()),
        }
    }

    pub fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.value()? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(senseless()),
        }
    }

    pub fn word(&mut self) -> Result<String, StoreError> {
        self.text()?.ok_or_else(senseless)
    }

    pub fn number<T: FromStr>(&mut self) -> Result<T, StoreError> {
        self.word()?.parse().map_err(|_| senseless())
    }

    /// `None` for an empty word.
    pub fn optional<T: FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        match self.word()?.as_str() {
            "" => Ok(None),
            word => word.parse().map(Some).map_err(|_| senseless()),
        }
    }
}

/// Redis has answered something that no script of ours says.
pub fn senseless() -> StoreError {
    unavailable("an answer that this release does not know")
}
