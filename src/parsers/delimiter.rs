use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

/// Tried in this order; of two that fit equally well the earlier wins.
const CANDIDATES: [u8; 7] = [b',', b';', b'\t', b'|', 0x1f, b'^', b'~'];
/// How many records are looked at.
const RECORDS: usize = 200;

/// Finds the delimiter of a CSV file by its first records: the one by which most of them have the same number of
/// fields, two or more. A comma when there is none, which makes a table of one column.
///
/// `whole` says that `sample` is all there is; otherwise its last record is not counted, since it may be cut.
pub fn detect(sample: &[u8], whole: bool) -> u8 {
    let mut best = (b',', 0.0);
    for candidate in CANDIDATES {
        let score = score(&field_counts(sample, candidate, whole));
        if score > best.1 {
            best = (candidate, score);
        }
    }
    best.0
}

/// A delimiter that the file itself names, as Excel does: a first line `sep=;`. With it comes the line's length.
pub fn declared(sample: &[u8]) -> Option<(u8, usize)> {
    let rest = sample
        .strip_prefix(b"sep=")
        .or(sample.strip_prefix(b"SEP="))?;
    let (delimiter, rest) = rest.split_first()?;
    let end = if rest.starts_with(b"\r\n") {
        2
    } else {
        usize::from(rest.starts_with(b"\n"))
    };
    (end > 0 && delimiter.is_ascii() && !b"\"\r\n".contains(delimiter))
        .then_some((*delimiter, 5 + end))
}

/// A delimiter out of the task's params: one ASCII character, or `tab`.
pub fn chosen(text: &str) -> Option<u8> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Some(b'\t'),
        [byte] if byte.is_ascii() && !b"\"\r\n\0".contains(byte) => Some(*byte),
        _ => None,
    }
}

pub fn reader(delimiter: u8) -> Reader {
    ReaderBuilder::new().delimiter(delimiter).build()
}

/// Between 0 and about 1: the share of records with the commonest number of fields, a little more for more fields.
fn score(counts: &[usize]) -> f64 {
    let common = |count: &usize| counts.iter().filter(|other| *other == count).count();
    let Some(best) = counts
        .iter()
        .filter(|count| **count > 1)
        .max_by_key(|count| (common(count), **count))
    else {
        return 0.0;
    };
    let share = common(best) as f64 / counts.len() as f64;
    share + (*best).min(100) as f64 / 10_000.0
}

fn field_counts(sample: &[u8], delimiter: u8, whole: bool) -> Vec<usize> {
    let mut reader = reader(delimiter);
    let mut room = [0; 4096];
    let mut rest = sample;
    let mut counts = Vec::new();
    let mut fields = 0;
    while counts.len() < RECORDS {
        let (result, read, _) = reader.read_field(rest, &mut room);
        rest = &rest[read..];
        match result {
            ReadFieldResult::Field { record_end } => {
                fields += 1;
                if record_end {
                    counts.push(fields);
                    fields = 0;
                }
            }
            ReadFieldResult::OutputFull => {}
            // A sample that is cut ends within a record; only the end of the file ends the last one.
            ReadFieldResult::InputEmpty if !whole => break,
            ReadFieldResult::InputEmpty => {}
            ReadFieldResult::End => break,
        }
    }
    if counts.is_empty() && fields > 0 {
        counts.push(fields + 1);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_found() {
        for (sample, expected) in [
            ("a,b,c\n1,2,3\n", b','),
            ("a;b;c\n1,5;2,5;3,5\n", b';'),
            ("a\tb\n1, 2\t3\n4\t5, 6\n", b'\t'),
            ("a|b\n\"x,y\"|2\n\"x,y\"|3\n", b'|'),
            ("one\ntwo\nthree\n", b','),
            ("name,text\nx,\"a;b;c\"\ny,\"d;e\"\n", b','),
        ] {
            assert_eq!(detect(sample.as_bytes(), true), expected, "{sample:?}");
        }
        assert_eq!(declared(b"sep=;\r\na;b"), Some((b';', 7)));
        assert_eq!(declared(b"separate,1"), None);
    }
}
