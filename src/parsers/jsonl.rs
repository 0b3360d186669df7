use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::cell::{Cell, Value};
use super::charset::Decoded;
use super::failure::Failure;
use super::profile::{COLUMNS_MAX, Profile};

/// A longer line is passed over, in bytes.
const LINE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Reads a file with one JSON object a line. Columns are the members, in the order of their first appearance; nested
/// values become JSON texts. Lines without content are passed over.
pub fn read_lines(source: Decoded<impl Read>) -> Result<Profile, Failure> {
    let mut source = BufReader::new(source);
    let mut table = Table::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if source
            .by_ref()
            .take(LINE_MAX_BYTES)
            .read_until(b'\n', &mut line)?
            == 0
        {
            break;
        }
        if line.len() as u64 == LINE_MAX_BYTES && line.last() != Some(&b'\n') {
            skip_line(&mut source)?;
            table.profile.problems.add(number, || {
                format!("the line is longer than {} MiB", LINE_MAX_BYTES >> 20)
            });
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if source.get_ref().malformed && String::from_utf8_lossy(&line).contains('\u{fffd}') {
            table
                .profile
                .problems
                .add(number, || "bytes that are not valid in the file's encoding");
        }
        match serde_json::from_slice::<Object>(&line) {
            Ok(object) => table.add(number, object),
            Err(error) => table.profile.problems.add(number, || problem(&error)),
        }
    }
    Ok(table.profile)
}

/// Reads a JSON array of objects, element by element.
pub fn read_array(source: Decoded<impl Read>) -> Result<Profile, Failure> {
    let mut table = Table::new();
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(source));
    let outcome = Elements { table: &mut table }
        .deserialize(&mut json)
        .and_then(|()| json.end());
    table.end(outcome)
}

/// Reads JSON objects that follow each other, whatever is between them; a file with a single object is one row.
pub fn read_objects(source: Decoded<impl Read>) -> Result<Profile, Failure> {
    let mut table = Table::new();
    let objects =
        serde_json::Deserializer::from_reader(BufReader::new(source)).into_iter::<Object>();
    for (number, object) in (1..).zip(objects) {
        match object {
            Ok(object) => table.add(number, object),
            Err(error) => return table.end(Err(error)),
        }
    }
    table.end(Ok(()))
}

/// Whether the first line is a JSON object of its own.
pub fn starts_with_object_line(text: &str) -> bool {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| serde_json::from_str::<Object>(line).is_ok())
}

struct Table {
    profile: Profile,
    columns: HashMap<String, usize>,
    row: Vec<Cell<'static>>,
    rows: u64,
}

impl Table {
    fn new() -> Self {
        Self {
            profile: Profile::keyed(),
            columns: HashMap::new(),
            row: Vec::new(),
            rows: 0,
        }
    }

    fn add(&mut self, number: u64, object: Object) {
        self.row.clear();
        self.row.resize(self.columns.len(), Cell::EMPTY);
        for (name, value) in object.members {
            let index = match self.columns.get(&name) {
                Some(index) => *index,
                None => {
                    let Some(index) = self.profile.add_column(&name) else {
                        self.profile.problems.add(number, || {
                            format!("members beyond the first {COLUMNS_MAX} names were left out")
                        });
                        continue;
                    };
                    self.columns.insert(name, index);
                    self.row.push(Cell::EMPTY);
                    index
                }
            };
            self.row[index] = cell(value);
        }
        self.profile.add_row(number, &self.row);
        self.rows += 1;
    }

    /// What was read before an error counts, if anything was.
    fn end(mut self, outcome: serde_json::Result<()>) -> Result<Profile, Failure> {
        match outcome {
            Ok(()) => Ok(self.profile),
            Err(error) if self.rows == 0 => Err(Failure::unparseable(problem(&error))),
            Err(error) => {
                self.profile.problems.add(self.rows + 1, || {
                    format!("{}; nothing after it was read", problem(&error))
                });
                Ok(self.profile)
            }
        }
    }
}

/// Serde's texts may quote the file; only the place and the kind are told.
fn problem(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "JSON that ends too early",
        serde_json::error::Category::Data => "JSON that is not an object",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "invalid JSON",
    };
    format!(
        "{what} (at line {}, column {} of it)",
        error.line(),
        error.column()
    )
}

fn cell(value: Json) -> Cell<'static> {
    match value {
        Json::Null => Cell::EMPTY,
        Json::Bool(boolean) => Cell {
            text: boolean.to_string().into(),
            value: Value::Boolean(boolean),
        },
        Json::Number(number) => {
            let value = match number.as_i64() {
                Some(integer) => Value::Integer(integer),
                None => number.as_f64().map_or(Value::Text, Value::Number),
            };
            Cell {
                text: number.to_string().into(),
                value,
            }
        }
        Json::String(text) => Cell::text(text),
        nested @ (Json::Array(_) | Json::Object(_)) => Cell {
            text: nested.to_string().into(),
            value: Value::Text,
        },
    }
}

fn skip_line(source: &mut impl BufRead) -> Result<(), Failure> {
    loop {
        let block = source.fill_buf()?;
        let end = block.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(block.len(), |at| at + 1);
        source.consume(count);
        if end.is_some() || count == 0 {
            return Ok(());
        }
    }
}

/// An object with its members in the order of the file.
struct Object {
    members: Vec<(String, Json)>,
}

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object { members })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Adds the elements of an array to a table as they are read.
struct Elements<'a> {
    table: &'a mut Table,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of objects")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut number = 0_u64;
        while let Some(element) = elements.next_element::<Object>()? {
            number = number
                .checked_add(1)
                .ok_or_else(|| A::Error::custom("too many elements"))?;
            self.table.add(number, element);
        }
        Ok(())
    }
}
