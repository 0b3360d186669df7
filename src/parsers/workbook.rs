use std::fs::File;
use std::io::BufReader;

use calamine::{CellErrorType, DataRef, ExcelDateTime, Reader, Xlsx, XlsxError};

use super::archive::Archive;
use super::cell::{Cell, Moment, Value};
use super::failure::Failure;
use super::input::Input;
use super::profile::COLUMNS_MAX;

/// Sheets beyond this one are left out.
pub const SHEETS_MAX: usize = 256;
/// A cell's text is cut here, in characters: Excel allows no more.
const CELL_MAX_CHARS: usize = 32_767;

/// What a workbook consists of, in the order of the file.
pub enum Part<'a> {
    Sheet(&'a str),
    /// A row with at least one cell that is not empty; `number` counts from 1 in the sheet. `errors` names cells that
    /// hold an error such as `#DIV/0!`.
    Row {
        number: u64,
        cells: &'a [Cell<'a>],
        errors: &'a [String],
    },
    /// The sheet could not be read any further.
    Damaged {
        number: u64,
    },
}

/// Walks the cells of an XLSX file, row by row. Rows are never laid out in full: memory grows with the file's shared
/// texts and not with the coordinates that it claims.
///
/// The archive is unpacked twice: once to count what it unpacks to, once to read it.
pub fn walk(
    mut input: Input,
    mut visit: impl FnMut(Part<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let size = input.size;
    Archive::open(BufReader::new(input.rewound()?), size)?.verify()?;
    let damaged = |_: XlsxError| Failure::unparseable("the workbook is damaged");
    let mut workbook: Xlsx<BufReader<File>> =
        Xlsx::new(BufReader::new(input.into_file()?)).map_err(damaged)?;
    for name in workbook.sheet_names().into_iter().take(SHEETS_MAX) {
        let mut cells = match workbook.worksheet_cells_reader(&name) {
            Ok(cells) => cells,
            // A sheet with nothing but a chart.
            Err(XlsxError::NotAWorksheet(_)) => continue,
            Err(_) => {
                visit(Part::Sheet(&name))?;
                visit(Part::Damaged { number: 1 })?;
                continue;
            }
        };
        visit(Part::Sheet(&name))?;
        let mut row = Row::default();
        loop {
            match cells.next_cell() {
                Ok(Some(cell)) => {
                    let (number, column) = cell.get_position();
                    if number != row.index {
                        row.flush(&mut visit)?;
                        row.index = number;
                    }
                    row.set(column as usize, cell.get_value());
                }
                Ok(None) => break row.flush(&mut visit)?,
                Err(_) => {
                    let number = u64::from(row.index) + 1;
                    row.flush(&mut visit)?;
                    break visit(Part::Damaged { number })?;
                }
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Row {
    /// From 0.
    index: u32,
    cells: Vec<Cell<'static>>,
    errors: Vec<String>,
    any: bool,
}

impl Row {
    fn set(&mut self, column: usize, value: &DataRef<'_>) {
        if column >= COLUMNS_MAX {
            return;
        }
        let cell = match value {
            DataRef::Empty => return,
            DataRef::Error(error) => {
                if self.errors.len() < 10 {
                    self.errors.push(format!(
                        "cell {}{} holds {}",
                        letters(column),
                        u64::from(self.index) + 1,
                        name(error)
                    ));
                }
                Cell::EMPTY
            }
            DataRef::Int(integer) => Cell {
                text: integer.to_string().into(),
                value: Value::Integer(*integer),
            },
            DataRef::Float(number) => number_cell(*number),
            DataRef::Bool(boolean) => Cell {
                text: boolean.to_string().into(),
                value: Value::Boolean(*boolean),
            },
            DataRef::DateTime(moment) => moment_cell(*moment),
            DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text_cell(text),
            DataRef::String(text) => text_cell(text),
            DataRef::SharedString(text) => text_cell(text),
        };
        if self.cells.len() <= column {
            self.cells.resize(column + 1, Cell::EMPTY);
        }
        self.any |= cell.value != Value::Empty;
        self.cells[column] = cell;
    }

    fn flush(
        &mut self,
        visit: &mut impl FnMut(Part<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.any || !self.errors.is_empty() {
            let number = u64::from(self.index) + 1;
            visit(Part::Row {
                number,
                cells: &self.cells,
                errors: &self.errors,
            })?;
        }
        self.cells.clear();
        self.errors.clear();
        self.any = false;
        Ok(())
    }
}

/// XLSX knows no integers: a number without a fraction is taken for one.
pub fn number_cell(number: f64) -> Cell<'static> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        let integer = number as i64;
        return Cell {
            text: integer.to_string().into(),
            value: Value::Integer(integer),
        };
    }
    let value = if number.is_finite() {
        Value::Number(number)
    } else {
        Value::Text
    };
    Cell {
        text: number.to_string().into(),
        value,
    }
}

fn moment_cell(moment: ExcelDateTime) -> Cell<'static> {
    let days = moment.as_f64();
    let (year, month, day, hour, minute, second, millisecond) = moment.to_ymd_hms_milli();
    let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    // Below one day it is a time of day, without a date.
    if moment.is_duration() || (0.0..1.0).contains(&days) {
        let seconds = (days * 86_400.0).round();
        let text = format!(
            "{:02}:{:02}:{:02}",
            (seconds / 3600.0).trunc(),
            (seconds / 60.0 % 60.0).trunc(),
            seconds % 60.0
        );
        return Cell {
            text: text.into(),
            value: Value::Text,
        };
    }
    let Some(stamp) = Moment::new(
        year.into(),
        month.into(),
        day.into(),
        of_day,
        i64::from(millisecond) * 1000,
    ) else {
        return number_cell(days);
    };
    if of_day == 0 && millisecond == 0 {
        Cell {
            text: stamp.iso_date().into(),
            value: Value::Date(stamp),
        }
    } else {
        Cell {
            text: stamp.iso_datetime().into(),
            value: Value::Datetime(stamp),
        }
    }
}

pub fn text_cell(text: &str) -> Cell<'static> {
    let end = text
        .char_indices()
        .nth(CELL_MAX_CHARS)
        .map_or(text.len(), |(end, _)| end);
    Cell::text(text[..end].to_owned())
}

fn name(error: &CellErrorType) -> &'static str {
    match error {
        CellErrorType::Div0 => "#DIV/0!",
        CellErrorType::NA => "#N/A",
        CellErrorType::Name => "#NAME?",
        CellErrorType::Null => "#NULL!",
        CellErrorType::Num => "#NUM!",
        CellErrorType::Ref => "#REF!",
        CellErrorType::Value => "#VALUE!",
        _ => "an error",
    }
}

/// `A`, `Z`, `AA` for 0, 25, 26.
fn letters(column: usize) -> String {
    let mut rest = column + 1;
    let mut letters = Vec::new();
    while rest > 0 {
        letters.push(char::from(b'A' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    letters.iter().rev().collect()
}
