use std::io::{BufRead, BufReader, Read};

use csv_core::{ReadFieldResult, Reader};

use super::cell::{Cell, Value};
use super::charset::Decoded;
use super::delimiter;
use super::failure::Failure;
use super::profile::{COLUMNS_MAX, Profile, Ragged};

/// A cell is cut here, in bytes: an unclosed quote makes one cell of the rest of the file.
const CELL_MAX_BYTES: usize = 1024 * 1024;
/// Further cells of a record that holds this much are dropped, in bytes.
const RECORD_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How much is looked at to find the delimiter, in bytes.
const SAMPLE_BYTES: usize = 256 * 1024;

/// Reads a CSV file; also returns its delimiter. Lines without content are passed over.
///
/// `delimiter` and `header` are what the task's params say, `None` to find out. With a semicolon, `1,5` is a number.
pub fn read(
    source: Decoded<impl Read>,
    delimiter: Option<u8>,
    header: Option<bool>,
) -> Result<(Profile, u8), Failure> {
    let mut source = BufReader::with_capacity(SAMPLE_BYTES, source);
    let mut sample = Vec::new();
    source
        .by_ref()
        .take(SAMPLE_BYTES as u64)
        .read_to_end(&mut sample)?;
    let whole = sample.len() < SAMPLE_BYTES;
    let declared = delimiter::declared(&sample);
    let delimiter = delimiter
        .or(declared.map(|(delimiter, _)| delimiter))
        .unwrap_or_else(|| delimiter::detect(&sample, whole));
    let skipped = declared.map_or(0, |(_, length)| length);

    let mut records = Records {
        reader: delimiter::reader(delimiter),
        record: Record::default(),
        number: 1 + u64::from(skipped > 0),
        line: 1,
        decimal_comma: delimiter == b';',
        profile: Profile::new(header, Ragged::IsProblem),
    };
    records.feed(&sample[skipped..], source.get_ref().malformed);
    loop {
        let block = source.fill_buf()?;
        let count = block.len();
        if count == 0 {
            break;
        }
        let block = block.to_vec();
        records.feed(&block, source.get_ref().malformed);
        source.consume(count);
    }
    let malformed = source.get_ref().malformed;
    Ok((records.finish(malformed), delimiter))
}

/// Turns blocks of text into records.
struct Records {
    reader: Reader,
    record: Record,
    /// Of the record that is being read, from 1.
    number: u64,
    /// The line on which it starts, from 1.
    line: u64,
    decimal_comma: bool,
    profile: Profile,
}

/// The record that is being read: the text of its fields, one after the other.
#[derive(Default)]
struct Record {
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes of `text` in use.
    used: usize,
    cut: bool,
    dropped: bool,
}

impl Records {
    fn feed(&mut self, mut block: &[u8], malformed: bool) {
        while !block.is_empty() {
            let read = self.step(block, malformed);
            block = &block[read..];
        }
    }

    /// Reads a piece of a field, and returns how much of the block it took.
    fn step(&mut self, block: &[u8], malformed: bool) -> usize {
        let start = self.record.ends.last().copied().unwrap_or(0);
        let full =
            self.record.used - start >= CELL_MAX_BYTES || self.record.used >= RECORD_MAX_BYTES;
        let mut waste = [0; 4096];
        let room = if full {
            &mut waste[..]
        } else {
            self.record.room()
        };
        let (result, read, written) = self.reader.read_field(block, room);
        if full {
            self.record.cut |= written > 0;
        } else {
            self.record.used += written;
        }
        if let ReadFieldResult::Field { record_end } = result {
            self.record.end_field();
            if record_end {
                self.end_record(malformed);
            }
        }
        read
    }

    fn end_record(&mut self, malformed: bool) {
        let Self {
            record,
            profile,
            number,
            decimal_comma,
            ..
        } = self;
        let text = String::from_utf8_lossy(&record.text[..record.used]);
        let mut start = 0;
        let cells: Vec<Cell<'_>> = record
            .ends
            .iter()
            .map(|end| {
                let cell = text.get(start..*end).unwrap_or("\u{fffd}");
                start = *end;
                Cell::inferred(cell, *decimal_comma)
            })
            .collect();
        if record.cut {
            profile.problems.add(*number, || {
                format!(
                    "a cell is longer than {} KiB and was cut",
                    CELL_MAX_BYTES >> 10
                )
            });
        }
        if record.dropped {
            profile.problems.add(*number, || {
                format!("cells beyond column {COLUMNS_MAX} were left out")
            });
        }
        if malformed && text.contains('\u{fffd}') {
            let line = self.line;
            profile.problems.add(*number, || {
                format!("bytes that are not valid in the file's encoding (line {line})")
            });
        }
        let is_blank_line = matches!(cells.as_slice(), [cell] if cell.value == Value::Empty);
        if !is_blank_line {
            profile.add_row(*number, &cells);
        }
        self.number += 1;
        self.line = self.reader.line();
        self.record.clear();
    }

    fn finish(mut self, malformed: bool) -> Profile {
        // Within quotes a line feed is text, outside it ends what is not ended yet.
        let mut room = [0; 64];
        let (result, _, written) = self.reader.read_field(b"\n", &mut room);
        if written > 0 {
            let (number, line) = (self.number, self.line);
            self.profile.problems.add(number, || {
                format!("a quote is never closed (in the record that starts on line {line})")
            });
        }
        let mut result = result;
        while result != ReadFieldResult::End {
            if let ReadFieldResult::Field { record_end } = result {
                self.record.end_field();
                if record_end {
                    self.end_record(malformed);
                }
            }
            result = self.reader.read_field(&[], &mut room).0;
        }
        self.profile
    }
}

impl Record {
    /// Room for at least one more byte of the field.
    fn room(&mut self) -> &mut [u8] {
        if self.text.len() < self.used + 4096 {
            self.text.resize(
                (self.used + 4096)
                    .max(self.text.len() * 2)
                    .min(RECORD_MAX_BYTES + 8192),
                0,
            );
        }
        let end = self.text.len().min(self.used + 64 * 1024);
        &mut self.text[self.used..end]
    }

    fn end_field(&mut self) {
        if self.ends.len() < COLUMNS_MAX {
            self.ends.push(self.used);
        } else {
            self.dropped = true;
            self.used = self.ends.last().copied().unwrap_or(0);
        }
    }

    fn clear(&mut self) {
        self.ends.clear();
        self.used = 0;
        self.cut = false;
        self.dropped = false;
    }
}
