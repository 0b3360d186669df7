use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde::Serialize;
use serde_json::{Number, Value as Json};

use super::cell::{Cell, Moment, Type, Value};

/// How much of a text is kept for `min` and `max`, in characters. Texts that agree this far count as equal there.
const EXTREME_MAX_CHARS: usize = 64;

/// What is known about a column. Memory is bounded whatever the number of cells.
#[derive(Debug)]
pub struct Column {
    pub name: String,
    empty: u64,
    counts: [u64; 7],
    /// Hashes of the texts seen (64 bits: two of 10,000 coincide once in 10^11 columns).
    distinct: HashSet<u64, BuildHasherDefault<DefaultHasher>>,
    distinct_max: usize,
    distinct_capped: bool,
    numbers: Numbers,
    moments: Option<(Moment, Moment)>,
    texts: Option<(String, String)>,
}

/// One column of the result.
#[derive(Debug, Clone, Serialize)]
pub struct ColumnReport {
    name: String,
    r#type: &'static str,
    /// Cells without content, missing ones included.
    empty: u64,
    /// Different texts among the others; the cap itself when `distinct_capped`.
    distinct: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    distinct_capped: bool,
    min: Json,
    max: Json,
    mean: Json,
}

impl Column {
    /// `empty`: rows that came before the column. `distinct_max`: how many different texts are counted.
    pub fn new(name: String, empty: u64, distinct_max: usize) -> Self {
        Self {
            name,
            empty,
            counts: [0; 7],
            distinct: HashSet::default(),
            distinct_max,
            distinct_capped: false,
            numbers: Numbers::default(),
            moments: None,
            texts: None,
        }
    }

    pub fn add_empty(&mut self) {
        self.empty += 1;
    }

    pub fn add(&mut self, cell: &Cell<'_>) {
        let kind = cell.value.kind();
        match cell.value {
            Value::Empty => return self.add_empty(),
            Value::Integer(integer) => self.numbers.add_integer(integer),
            Value::Number(number) => self.numbers.add(number),
            Value::Date(moment) | Value::Datetime(moment) => {
                let (min, max) = self.moments.unwrap_or((moment, moment));
                self.moments = Some((min.min(moment), max.max(moment)));
            }
            Value::Boolean(_) | Value::Text => {}
        }
        self.counts[kind as usize] += 1;
        self.add_text(&cell.text);
    }

    fn add_text(&mut self, text: &str) {
        if !self.distinct_capped {
            let hash = self.distinct.hasher().hash_one(text);
            if self.distinct.len() < self.distinct_max {
                self.distinct.insert(hash);
            } else if !self.distinct.contains(&hash) {
                self.distinct_capped = true;
                self.distinct = HashSet::default();
            }
        }
        match &mut self.texts {
            None => self.texts = Some((cut(text).to_owned(), cut(text).to_owned())),
            Some((min, _)) if text < min.as_str() => cut(text).clone_into(min),
            Some((_, max)) if text > max.as_str() => cut(text).clone_into(max),
            Some(_) => {}
        }
    }

    /// One type when all cells agree, `number` for integers and numbers, `datetime` for dates and datetimes.
    pub fn kind(&self) -> Type {
        let any = |kind: Type| self.counts[kind as usize] > 0;
        let numeric = any(Type::Integer) || any(Type::Number);
        let temporal = any(Type::Date) || any(Type::Datetime);
        match (numeric, temporal, any(Type::Boolean), any(Type::String)) {
            (false, false, false, false) => Type::Empty,
            (true, false, false, false) if any(Type::Number) => Type::Number,
            (true, false, false, false) => Type::Integer,
            (false, true, false, false) if any(Type::Datetime) => Type::Datetime,
            (false, true, false, false) => Type::Date,
            (false, false, true, false) => Type::Boolean,
            _ => Type::String,
        }
    }

    pub fn report(&self) -> ColumnReport {
        let kind = self.kind();
        let moments = |iso: fn(Moment) -> String| match self.moments {
            Some((min, max)) => (Json::from(iso(min)), Json::from(iso(max))),
            None => (Json::Null, Json::Null),
        };
        let (min, max) = match (kind, &self.texts) {
            (Type::Integer, _) => (
                self.numbers.integer_min.into(),
                self.numbers.integer_max.into(),
            ),
            (Type::Number, _) => (number(self.numbers.min), number(self.numbers.max)),
            (Type::Date, _) => moments(Moment::iso_date),
            (Type::Datetime, _) => moments(Moment::iso_datetime),
            (Type::Boolean, Some((min, max))) => (
                min.eq_ignore_ascii_case("true").into(),
                max.eq_ignore_ascii_case("true").into(),
            ),
            (_, Some((min, max))) => (min.as_str().into(), max.as_str().into()),
            (_, None) => (Json::Null, Json::Null),
        };
        let mean = match kind {
            Type::Integer | Type::Number => number(self.numbers.mean()),
            _ => Json::Null,
        };
        ColumnReport {
            name: self.name.clone(),
            r#type: kind.name(),
            empty: self.empty,
            distinct: if self.distinct_capped {
                self.distinct_max
            } else {
                self.distinct.len()
            },
            distinct_capped: self.distinct_capped,
            min,
            max,
            mean,
        }
    }
}

/// Sum, least and greatest of a column's numbers. The sum is compensated (Neumaier), so that many small ones count.
#[derive(Debug)]
struct Numbers {
    count: u64,
    sum: f64,
    lost: f64,
    min: f64,
    max: f64,
    integer_min: i64,
    integer_max: i64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            lost: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            integer_min: i64::MAX,
            integer_max: i64::MIN,
        }
    }
}

impl Numbers {
    fn add_integer(&mut self, integer: i64) {
        self.integer_min = self.integer_min.min(integer);
        self.integer_max = self.integer_max.max(integer);
        self.add(integer as f64);
    }

    fn add(&mut self, number: f64) {
        let sum = self.sum + number;
        self.lost += if self.sum.abs() >= number.abs() {
            (self.sum - sum) + number
        } else {
            (number - sum) + self.sum
        };
        self.sum = sum;
        self.count += 1;
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    fn mean(&self) -> f64 {
        (self.sum + self.lost) / self.count as f64
    }
}

/// `null` when JSON has no such number.
fn number(number: f64) -> Json {
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(EXTREME_MAX_CHARS)
        .map_or(text, |(end, _)| &text[..end])
}
