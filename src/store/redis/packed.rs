//! Values packed into one string, as MessagePack writes them: what scripts read in one call.

use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;

use super::reply::senseless;

/// Values on their way into a script.
pub struct Packed(Vec<u8>);

/// More than most records take, so that they need not move while they grow.
const USUAL_BYTES: usize = 384;

impl Default for Packed {
    fn default() -> Self {
        Packed(Vec::with_capacity(USUAL_BYTES))
    }
}

impl Packed {
    pub fn nothing(&mut self) -> &mut Self {
        self.0.push(0xc0);
        self
    }

    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.0.push(0xc2 + u8::from(value));
        self
    }

    pub fn number(&mut self, value: i64) -> &mut Self {
        match (u8::try_from(value), u32::try_from(value)) {
            (Ok(small @ 0..0x80), _) => self.0.push(small),
            (_, Ok(value)) => {
                self.0.push(0xce);
                self.0.extend(value.to_be_bytes());
            }
            _ => {
                self.0.push(0xd3);
                self.0.extend(value.to_be_bytes());
            }
        }
        self
    }

    pub fn maybe_number(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.number(value),
            None => self.nothing(),
        }
    }

    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub fn maybe_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.nothing(),
        }
    }

    /// Longer than 4 GiB is nothing that a script is told.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        match value.len() {
            length @ 0..0x20 => self.0.push(0xa0 | length as u8),
            length @ 0x20..0x100 => self.0.extend([0xd9, length as u8]),
            length => {
                self.0.push(0xdb);
                self.0.extend((length as u32).to_be_bytes());
            }
        }
        self.0.extend(value);
        self
    }

    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Values as a script has packed them, one after the other.
pub struct Reader<'a>(&'a [u8]);

enum Value<'a> {
    Nothing,
    Flag(bool),
    Number(i64),
    Bytes(&'a [u8]),
}

impl<'a> Reader<'a> {
    pub fn new(packed: &'a [u8]) -> Self {
        Reader(packed)
    }

    /// Whether no value follows.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Says what it is that is not needed.
    pub fn skip(&mut self, _what: &str) -> Result<(), StoreError> {
        self.value().map(|_| ())
    }

    /// Nothing counts as no.
    pub fn flag(&mut self) -> Result<bool, StoreError> {
        match self.value()? {
            Value::Nothing => Ok(false),
            Value::Flag(value) => Ok(value),
            Value::Number(_) | Value::Bytes(_) => Err(senseless()),
        }
    }

    pub fn number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, StoreError> {
        match self.value()? {
            Value::Nothing => Ok(None),
            Value::Number(value) => T::try_from(value).map(Some).map_err(|_| senseless()),
            Value::Flag(_) | Value::Bytes(_) => Err(senseless()),
        }
    }

    pub fn time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.number()?.map(Timestamp::from_ms))
    }

    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, StoreError> {
        match self.value()? {
            Value::Nothing => Ok(None),
            Value::Bytes(value) => Ok(Some(value)),
            Value::Flag(_) | Value::Number(_) => Err(senseless()),
        }
    }

    pub fn text(&mut self) -> Result<Option<&'a str>, StoreError> {
        let text = self.bytes()?.map(std::str::from_utf8);
        text.transpose().map_err(|_| senseless())
    }

    pub fn word(&mut self) -> Result<&'a str, StoreError> {
        self.text()?.ok_or_else(senseless)
    }

    fn value(&mut self) -> Result<Value<'a>, StoreError> {
        let [kind] = self.array()?;
        Ok(match kind {
            0x00..=0x7f => Value::Number(i64::from(kind)),
            0xe0..=0xff => Value::Number(i64::from(kind.cast_signed())),
            0xa0..=0xbf => Value::Bytes(self.take(usize::from(kind & 0x1f))?),
            0xc0 => Value::Nothing,
            0xc2 | 0xc3 => Value::Flag(kind == 0xc3),
            0xcc => Value::Number(u8::from_be_bytes(self.array()?).into()),
            0xcd => Value::Number(u16::from_be_bytes(self.array()?).into()),
            0xce => Value::Number(u32::from_be_bytes(self.array()?).into()),
            0xcf | 0xd3 => Value::Number(i64::from_be_bytes(self.array()?)),
            0xd0 => Value::Number(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Value::Number(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Value::Number(i32::from_be_bytes(self.array()?).into()),
            0xd9 => {
                let length = u8::from_be_bytes(self.array()?);
                Value::Bytes(self.take(length.into())?)
            }
            0xda => {
                let length = u16::from_be_bytes(self.array()?);
                Value::Bytes(self.take(length.into())?)
            }
            0xdb => {
                let length = u32::from_be_bytes(self.array()?);
                Value::Bytes(self.take(length as usize)?)
            }
            _ => return Err(senseless()),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (array, rest) = self.0.split_first_chunk().ok_or_else(senseless)?;
        self.0 = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(senseless)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_again() {
        let long = "x".repeat(70_000);
        let texts = ["", "short", &long[..31], &long[..32], &long[..256], &long];
        let numbers = [0, 1, 127, 128, 255, -1, -33, 1 << 52, i64::MIN];
        let mut packed = Packed::default();
        packed.nothing().flag(true).flag(false);
        for text in texts {
            packed.text(text);
        }
        for number in numbers {
            packed.number(number);
        }
        let packed = packed.take();
        let mut reader = Reader::new(&packed);
        assert_eq!(reader.text().unwrap(), None);
        assert!(reader.flag().unwrap() && !reader.flag().unwrap());
        for text in texts {
            assert_eq!(reader.word().unwrap(), text);
        }
        for number in numbers {
            assert_eq!(reader.number().unwrap(), Some(number));
        }
        assert!(reader.skip("the end").is_err());
    }

    #[test]
    fn what_is_cut_short_is_no_value() {
        for cut in [&[0xd9_u8][..], &[0xa3, b'a'], &[0xcf, 1, 2], &[0xc1], &[]] {
            assert!(Reader::new(cut).skip("a part").is_err(), "{cut:?}");
        }
    }
}
