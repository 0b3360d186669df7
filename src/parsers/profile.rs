use serde::Serialize;
use serde_json::Value as Json;

use super::cell::{Cell, Type, Value};
use super::column::{Column, ColumnReport};
use super::header::{Names, is_header};
use super::problems::{Problem, Problems};

/// Columns beyond this one are dropped; spreadsheets have no more either.
pub const COLUMNS_MAX: usize = 16_384;
/// Different values that are counted in a column.
const DISTINCT_MAX: usize = 10_000;
/// Different values that are counted in all columns together, so that wide tables stay small in memory.
const DISTINCT_TOTAL_MAX: usize = 2_000_000;
/// Rows of the sample.
const SAMPLE_ROWS: usize = 10;
/// A cell of the sample is cut here, in characters.
const SAMPLE_CELL_MAX_CHARS: usize = 256;
/// No row is added to a sample that is this large, in bytes.
const SAMPLE_MAX_BYTES: usize = 1024 * 1024;
/// Rows that are looked at to tell whether the first is a header.
const PREVIEW_ROWS: usize = 100;
/// The rows above take at most about this much memory, in bytes.
const PREVIEW_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What becomes of a table, row by row, in bounded memory.
pub struct Profile {
    preview: Option<Preview>,
    columns: Vec<Column>,
    names: Names,
    distinct_max: usize,
    /// Rows with another number of cells than this are a problem; `None` where a missing cell is an empty cell.
    width: Option<usize>,
    rows: u64,
    sample: Vec<Vec<Cell<'static>>>,
    sample_bytes: usize,
    pub problems: Problems,
}

/// Rows that wait for the decision about the header.
struct Preview {
    rows: Vec<(u64, Vec<Cell<'static>>)>,
    bytes: usize,
    header: Option<bool>,
    ragged: Ragged,
}

/// Whether all rows must have the same number of cells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ragged {
    IsProblem,
    IsFine,
}

/// One table of the result.
#[derive(Debug, Clone, Serialize)]
pub struct TableReport {
    /// Without the header.
    pub rows: u64,
    pub columns: Vec<ColumnReport>,
    /// The first 10 rows, in the types of their columns; `null` for an empty cell.
    pub sample: Vec<Vec<Json>>,
    pub problems: Vec<Problem>,
    /// Problems beyond the first 100.
    #[serde(skip_serializing_if = "is_zero")]
    pub problems_omitted: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Profile {
    /// A table whose first row may be its header: `header` says so, or `None` to find out.
    pub fn new(header: Option<bool>, ragged: Ragged) -> Self {
        let preview = Preview {
            rows: Vec::new(),
            bytes: 0,
            header,
            ragged,
        };
        Self {
            preview: Some(preview),
            ..Self::keyed()
        }
    }

    /// A table whose columns are named by [`Self::add_column`].
    pub fn keyed() -> Self {
        Self {
            preview: None,
            columns: Vec::new(),
            names: Names::default(),
            distinct_max: DISTINCT_MAX,
            width: None,
            rows: 0,
            sample: Vec::new(),
            sample_bytes: 0,
            problems: Problems::default(),
        }
    }

    /// Adds a row. `number` is the one that problems name.
    pub fn add_row(&mut self, number: u64, cells: &[Cell<'_>]) {
        let Some(preview) = &mut self.preview else {
            return self.count_row(number, cells);
        };
        preview.bytes += cells
            .iter()
            .map(|cell| cell.text.len() + size_of::<Cell<'_>>())
            .sum::<usize>();
        preview.rows.push((
            number,
            cells.iter().cloned().map(Cell::into_owned).collect(),
        ));
        if preview.rows.len() > PREVIEW_ROWS || preview.bytes > PREVIEW_MAX_BYTES {
            self.decide();
        }
    }

    /// Adds a column that rows before did not have, and returns its index; `None` beyond the limit.
    pub fn add_column(&mut self, wanted: &str) -> Option<usize> {
        let index = self.columns.len();
        if index >= COLUMNS_MAX {
            return None;
        }
        self.columns.push(Column::new(
            self.names.next(wanted),
            self.rows,
            self.distinct_max,
        ));
        if index >= 256 && index.is_power_of_two() {
            self.distinct_max = DISTINCT_MAX.min(DISTINCT_TOTAL_MAX / (2 * index));
        }
        Some(index)
    }

    pub fn report(mut self) -> TableReport {
        self.decide();
        let kinds: Vec<Type> = self.columns.iter().map(Column::kind).collect();
        let sample = self
            .sample
            .iter()
            .map(|row| sample_row(row, &kinds))
            .collect();
        TableReport {
            rows: self.rows,
            columns: self.columns.iter().map(Column::report).collect(),
            sample,
            problems: self.problems.told().to_vec(),
            problems_omitted: self.problems.untold(),
        }
    }

    /// Decides about the header and counts the rows that waited for it.
    fn decide(&mut self) {
        let Some(Preview {
            rows,
            header,
            ragged,
            ..
        }) = self.preview.take()
        else {
            return;
        };
        let (_, cells): (Vec<u64>, Vec<Vec<Cell<'static>>>) = rows.iter().cloned().unzip();
        let Some((first, below)) = cells.split_first() else {
            return;
        };
        let has_header = header.unwrap_or_else(|| is_header(first, below));
        let width = first.len().min(COLUMNS_MAX);
        self.distinct_max = DISTINCT_MAX.min(DISTINCT_TOTAL_MAX / width.max(1));
        for cell in &first[..width] {
            self.add_column(if has_header { &cell.text } else { "" });
        }
        self.width = (ragged == Ragged::IsProblem).then_some(first.len());
        for (number, cells) in rows.iter().skip(usize::from(has_header)) {
            self.count_row(*number, cells);
        }
    }

    fn count_row(&mut self, number: u64, cells: &[Cell<'_>]) {
        if let Some(width) = self.width.filter(|width| *width != cells.len()) {
            self.problems.add(number, || {
                format!("{} fields instead of {width}", cells.len())
            });
        }
        while self.columns.len() < cells.len() {
            if self.add_column("").is_none() {
                self.problems.add(number, || {
                    format!("cells beyond column {COLUMNS_MAX} were left out")
                });
                break;
            }
        }
        for (index, column) in self.columns.iter_mut().enumerate() {
            match cells.get(index) {
                Some(cell) => column.add(cell),
                None => column.add_empty(),
            }
        }
        self.rows += 1;
        if self.sample.len() < SAMPLE_ROWS && self.sample_bytes < SAMPLE_MAX_BYTES {
            let kept: Vec<Cell<'static>> =
                cells.iter().take(COLUMNS_MAX).map(sample_cell).collect();
            self.sample_bytes += kept.iter().map(|cell| cell.text.len()).sum::<usize>();
            self.sample.push(kept);
        }
    }
}

fn sample_cell(cell: &Cell<'_>) -> Cell<'static> {
    let text: String = cell.text.chars().take(SAMPLE_CELL_MAX_CHARS).collect();
    Cell {
        text: text.into(),
        value: cell.value,
    }
}

/// All rows of a sample are as wide as the table.
fn sample_row(row: &[Cell<'static>], kinds: &[Type]) -> Vec<Json> {
    let cell = |(index, kind): (usize, &Type)| {
        row.get(index)
            .map_or(Json::Null, |cell| sample_value(cell, *kind))
    };
    kinds.iter().enumerate().map(cell).collect()
}

fn sample_value(cell: &Cell<'_>, kind: Type) -> Json {
    match (cell.value, kind) {
        (Value::Empty, _) => Json::Null,
        (Value::Integer(integer), Type::Integer | Type::Number) => integer.into(),
        (Value::Number(number), Type::Number) => number.into(),
        (Value::Boolean(boolean), Type::Boolean) => boolean.into(),
        _ => cell.text.as_ref().into(),
    }
}
