use std::borrow::Cow;

/// The type of a value, and in the end that of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Empty,
    Integer,
    Number,
    Boolean,
    Date,
    Datetime,
    String,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Datetime => "datetime",
            Self::String => "string",
        }
    }
}

/// What a cell's text means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Empty,
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Date(Moment),
    Datetime(Moment),
    Text,
}

impl Value {
    pub fn kind(self) -> Type {
        match self {
            Self::Empty => Type::Empty,
            Self::Integer(_) => Type::Integer,
            Self::Number(_) => Type::Number,
            Self::Boolean(_) => Type::Boolean,
            Self::Date(_) => Type::Date,
            Self::Datetime(_) => Type::Datetime,
            Self::Text => Type::String,
        }
    }
}

/// One cell: its text as it stands in the file, and what that means.
#[derive(Debug, Clone)]
pub struct Cell<'a> {
    pub text: Cow<'a, str>,
    pub value: Value,
}

impl<'a> Cell<'a> {
    pub const EMPTY: Cell<'static> = Cell {
        text: Cow::Borrowed(""),
        value: Value::Empty,
    };

    /// A cell of a format without types. `decimal_comma` takes `1,5` for a number as well.
    pub fn inferred(text: impl Into<Cow<'a, str>>, decimal_comma: bool) -> Self {
        let text = text.into();
        let value = infer(text.trim(), decimal_comma);
        Self { text, value }
    }

    /// A text of a format with types: a date when it looks like one, never a number.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        let trimmed = text.trim();
        let value = if trimmed.is_empty() {
            Value::Empty
        } else {
            moment(trimmed).unwrap_or(Value::Text)
        };
        Self { text, value }
    }

    pub fn into_owned(self) -> Cell<'static> {
        Cell {
            text: Cow::Owned(self.text.into_owned()),
            value: self.value,
        }
    }
}

/// A point in time that sorts: microseconds since 1970, by the clock on the wall unless an offset is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub microseconds: i64,
}

impl Moment {
    /// `None` for days that do not exist.
    pub fn new(
        year: i64,
        month: i64,
        day: i64,
        second_of_day: i64,
        microsecond: i64,
    ) -> Option<Self> {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let days = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if !(1..=days).contains(&day) || !(0..=9999).contains(&year) {
            return None;
        }
        let seconds = days_since_1970(year, month, day) * 86_400 + second_of_day;
        Some(Self {
            microseconds: seconds * 1_000_000 + microsecond,
        })
    }

    /// `2024-02-29`.
    pub fn iso_date(self) -> String {
        let (year, month, day) = self.date();
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// `2024-02-29T23:59:59`, with a fraction when there is one.
    pub fn iso_datetime(self) -> String {
        let of_day = self.microseconds.rem_euclid(86_400_000_000);
        let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
        let clock = format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        let fraction = if fraction == 0 {
            String::new()
        } else {
            format!(".{fraction:06}")
        };
        format!("{}T{clock}{fraction}", self.iso_date())
    }

    /// Howard Hinnant's `civil_from_days`.
    fn date(self) -> (i64, i64, i64) {
        let shifted = self.microseconds.div_euclid(86_400_000_000) + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        (year_of_era + era * 400 + i64::from(month <= 2), month, day)
    }
}

/// Howard Hinnant's `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn infer(text: &str, decimal_comma: bool) -> Value {
    let Some(&first) = text.as_bytes().first() else {
        return Value::Empty;
    };
    match first {
        b'0'..=b'9' | b'-' | b'+' | b'.' => number(text, decimal_comma)
            .or_else(|| moment(text))
            .unwrap_or(Value::Text),
        b't' | b'T' if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
        b'f' | b'F' if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
        _ => Value::Text,
    }
}

/// `12`, `-3`, `1.5`, `2e10`; `1,5` with a decimal comma. Not `007`, `+49`, `1.`, `inf`: those are names rather than
/// amounts. What is too large for 64 bits is a number.
fn number(text: &str, decimal_comma: bool) -> Option<Value> {
    let bytes = text.as_bytes();
    let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let whole = unsigned
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if whole > 1 && unsigned[0] == b'0' {
        return None;
    }
    let rest = &unsigned[whole..];
    if rest.is_empty() {
        return text
            .parse()
            .map(Value::Integer)
            .or_else(|_| text.parse().map(Value::Number))
            .ok();
    }
    let comma = decimal_comma && rest[0] == b',';
    let mut rest = rest;
    if rest[0] == b'.' || comma {
        let fraction = rest[1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if fraction == 0 {
            return None;
        }
        rest = &rest[1 + fraction..];
    } else if whole == 0 {
        return None;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let digits = exponent
            .strip_prefix(b"-")
            .or(exponent.strip_prefix(b"+"))
            .unwrap_or(exponent);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    let parsed: f64 = if comma {
        text.replace(',', ".").parse().ok()?
    } else {
        text.parse().ok()?
    };
    parsed.is_finite().then_some(Value::Number(parsed))
}

/// `2024-02-29`, `2024/02/29`, `29.02.2024`, and with a time `T` or a space after it: `12:30`, `12:30:59.123`, with
/// `Z` or an offset. `01/02/2024` means different days to different people and stays a text.
fn moment(text: &str) -> Option<Value> {
    let bytes = text.as_bytes();
    if bytes.len() < 10 || bytes.len() > 40 || !text.is_ascii() {
        return None;
    }
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = bytes.get(from..to)?;
        part.iter().try_fold(0, |sum, byte| {
            byte.is_ascii_digit()
                .then(|| sum * 10 + i64::from(byte - b'0'))
        })
    };
    let (year, month, day) = match (bytes[2], bytes[4], bytes[5], bytes[7]) {
        (_, b'-', _, b'-') | (_, b'/', _, b'/') => (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?),
        (b'.', _, b'.', _) => (digits(6, 10)?, digits(3, 5)?, digits(0, 2)?),
        _ => return None,
    };
    let rest = &text[10..];
    if rest.is_empty() {
        return Moment::new(year, month, day, 0, 0).map(Value::Date);
    }
    let (second_of_day, microsecond) = clock(rest.strip_prefix(['T', 't', ' '])?)?;
    Moment::new(year, month, day, second_of_day, microsecond).map(Value::Datetime)
}

/// Seconds of the day, less the offset, and microseconds.
fn clock(text: &str) -> Option<(i64, i64)> {
    let two = |text: &str| {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<i64>().ok())
            .flatten()
    };
    let (clock, offset) = match text.find(['Z', 'z', '+', '-']) {
        Some(at) => (text[..at].trim_end(), offset_seconds(&text[at..])?),
        None => (text, 0),
    };
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (two(parts.next()?)?, two(parts.next()?)?);
    let seconds = parts.next().unwrap_or("00");
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let second = two(second)?;
    if hour > 23
        || minute > 59
        || second > 60
        || fraction.is_empty()
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let microsecond = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some((hour * 3600 + minute * 60 + second - offset, microsecond))
}

fn offset_seconds(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return (text.len() == 1).then_some(0),
    };
    let digits = digits.replace(':', "");
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours: i64 = digits[..2].parse().ok()?;
    let minutes: i64 = digits[2..].parse().unwrap_or(0);
    (hours <= 14 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> &'static str {
        Cell::inferred(text, false).value.kind().name()
    }

    #[test]
    fn texts_get_the_type_that_they_look_like() {
        for (text, expected) in [
            ("", "empty"),
            ("  ", "empty"),
            ("0", "integer"),
            ("-12", "integer"),
            ("007", "string"),
            ("+49", "string"),
            ("1.5", "number"),
            (".5", "number"),
            ("1.", "string"),
            ("2e10", "number"),
            ("1e999", "string"),
            ("99999999999999999999", "number"),
            ("-", "string"),
            ("NaN", "string"),
            ("inf", "string"),
            ("1,5", "string"),
            ("TRUE", "boolean"),
            ("true story", "string"),
            ("2024-02-29", "date"),
            ("2023-02-29", "string"),
            ("29.02.2024", "date"),
            ("01/02/2024", "string"),
            ("2024-02-29T12:30", "datetime"),
            ("2024-02-29 12:30:59.5+02:00", "datetime"),
            ("2024-02-29 25:00", "string"),
            ("1234567890", "integer"),
            ("2024-02-30é", "string"),
        ] {
            assert_eq!(kind(text), expected, "{text:?}");
        }
        assert_eq!(Cell::inferred("1,5", true).value, Value::Number(1.5));
    }

    #[test]
    fn moments_keep_their_day() {
        for (text, iso) in [
            ("1970-01-01", "1970-01-01"),
            ("0001-03-01", "0001-03-01"),
            ("29.02.2000", "2000-02-29"),
        ] {
            let Value::Date(moment) = Cell::inferred(text, false).value else {
                panic!("{text} is a date")
            };
            assert_eq!(moment.iso_date(), iso);
        }
        let Value::Datetime(moment) = Cell::inferred("2024-03-01T00:30:00+01:00", false).value
        else {
            panic!("a datetime")
        };
        assert_eq!(moment.iso_datetime(), "2024-02-29T23:30:00");
    }
}
