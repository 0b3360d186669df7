use std::io::BufReader;

use super::archive::Archive;
use super::cell::{Cell, Value};
use super::failure::{Code, Failure};
use super::input::Input;
use super::profile::COLUMNS_MAX;
use super::workbook::{Part, SHEETS_MAX, number_cell, text_cell};
use super::xml::{self, Element};

/// A row that repeats more often than this is counted this often.
const REPEATED_ROWS_MAX: u64 = 1_048_576;

/// Walks the cells of an ODS file like [`super::workbook::walk`]. Repeated cells and rows without content, with which
/// every sheet is filled up to its far corner, are never laid out.
pub fn walk(
    mut input: Input,
    mut visit: impl FnMut(Part<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let size = input.size;
    let mut archive = Archive::open(BufReader::new(input.rewound()?), size)?;
    let manifest = archive.start_of("META-INF/manifest.xml", 1 << 20)?;
    if String::from_utf8_lossy(&manifest).contains("encryption-data") {
        return Err(Failure::new(Code::Encrypted, "the workbook is encrypted"));
    }
    let content = archive
        .entry("content.xml")?
        .ok_or_else(|| Failure::unparseable("the workbook has no content"))?;
    let mut reading = Reading::default();
    xml::walk(content, |part| match part {
        xml::Part::Start(element) => reading.start(&element, &mut visit),
        xml::Part::End(name) => reading.end(name, &mut visit),
        xml::Part::Text(text) => {
            reading.text(text);
            Ok(())
        }
    })
}

#[derive(Default)]
struct Reading {
    sheets: usize,
    /// Of the next row, from 1.
    number: u64,
    row_repeats: u64,
    cells: Vec<Cell<'static>>,
    /// Cells without content that are only laid out when one with content follows.
    pending_empty: usize,
    cell: Option<OpenCell>,
}

struct OpenCell {
    repeats: usize,
    kind: Option<String>,
    value: Option<String>,
    text: String,
    paragraphs: usize,
    in_paragraph: usize,
    in_note: usize,
}

impl Reading {
    fn start(
        &mut self,
        element: &Element<'_>,
        visit: &mut impl FnMut(Part<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let repeats = |name: &str| {
            element
                .attribute(name)
                .and_then(|count| count.parse::<u64>().ok())
                .unwrap_or(1)
        };
        match element.name() {
            "table" => {
                self.sheets += 1;
                self.number = 1;
                if self.sheets <= SHEETS_MAX {
                    visit(Part::Sheet(&element.attribute("name").unwrap_or_default()))?;
                }
            }
            "table-row" => {
                self.row_repeats = repeats("number-rows-repeated").clamp(1, REPEATED_ROWS_MAX);
                self.cells.clear();
                self.pending_empty = 0;
            }
            "table-cell" | "covered-table-cell" => {
                let value = ["value", "date-value", "boolean-value"]
                    .iter()
                    .find_map(|name| element.attribute(name));
                self.cell = Some(OpenCell {
                    repeats: usize::try_from(repeats("number-columns-repeated"))
                        .unwrap_or(usize::MAX),
                    kind: element.attribute("value-type"),
                    value,
                    text: String::new(),
                    paragraphs: 0,
                    in_paragraph: 0,
                    in_note: 0,
                });
            }
            name => {
                if let Some(cell) = &mut self.cell {
                    cell.start(name, element);
                }
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        name: &str,
        visit: &mut impl FnMut(Part<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match name {
            "table-cell" | "covered-table-cell" => {
                if let Some(open) = self.cell.take() {
                    self.add(&open);
                }
            }
            "table-row" => {
                let repeats = std::mem::take(&mut self.row_repeats);
                if self.cells.is_empty() || self.sheets > SHEETS_MAX {
                    self.number += repeats;
                    return Ok(());
                }
                for _ in 0..repeats {
                    visit(Part::Row {
                        number: self.number,
                        cells: &self.cells,
                        errors: &[],
                    })?;
                    self.number += 1;
                }
            }
            _ => {
                if let Some(cell) = &mut self.cell {
                    cell.end(name);
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if let Some(cell) = &mut self.cell
            && cell.in_paragraph > 0
            && cell.in_note == 0
        {
            cell.text.push_str(text);
        }
    }

    fn add(&mut self, open: &OpenCell) {
        let cell = open.cell();
        if cell.value == Value::Empty {
            self.pending_empty = self
                .pending_empty
                .saturating_add(open.repeats)
                .min(COLUMNS_MAX);
            return;
        }
        let start = (self.cells.len() + std::mem::take(&mut self.pending_empty)).min(COLUMNS_MAX);
        self.cells.resize(start, Cell::EMPTY);
        self.cells
            .resize(start.saturating_add(open.repeats).min(COLUMNS_MAX), cell);
    }
}

impl OpenCell {
    fn start(&mut self, name: &str, element: &Element<'_>) {
        match name {
            "annotation" => self.in_note += 1,
            "p" => {
                if self.paragraphs > 0 && self.in_note == 0 {
                    self.text.push('\n');
                }
                self.paragraphs += 1;
                self.in_paragraph += 1;
            }
            "s" => {
                let count = element
                    .attribute("c")
                    .and_then(|count| count.parse().ok())
                    .unwrap_or(1);
                self.text.extend(std::iter::repeat_n(' ', count.min(1000)));
            }
            "tab" => self.text.push('\t'),
            "line-break" => self.text.push('\n'),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "annotation" => self.in_note = self.in_note.saturating_sub(1),
            "p" => self.in_paragraph = self.in_paragraph.saturating_sub(1),
            _ => {}
        }
    }

    fn cell(&self) -> Cell<'static> {
        match (self.kind.as_deref(), self.value.as_deref()) {
            (Some("float" | "percentage" | "currency"), Some(value)) => value
                .parse()
                .map_or_else(|_| text_cell(&self.text), number_cell),
            (Some("boolean"), Some(value)) => Cell {
                text: value.to_owned().into(),
                value: Value::Boolean(value == "true"),
            },
            (Some("date"), Some(value)) => text_cell(value),
            _ => text_cell(&self.text),
        }
    }
}
