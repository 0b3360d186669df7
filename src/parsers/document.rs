use std::fs::File;

use serde::Serialize;

use super::cell::Cell;
use super::charset;
use super::chunks::{Chunk, Cutting};
use super::docx;
use super::failure::{Code, Failure};
use super::html;
use super::input::Input;
use super::language;
use super::ods;
use super::pdf;
use super::request::Request;
use super::sniff::{Format, sniff, sniff_text};
use super::text::{Text, first_heading, first_line};
use super::workbook::{self, Part};

/// The largest document that is read into memory, in bytes.
pub const DOCUMENT_MAX_BYTES: u64 = 128 * 1024 * 1024;
const CHUNK_SIZE_CHARS: usize = 1000;

/// The result of `process_document`.
#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    chunks_created: usize,
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'static str>,
    /// Of a PDF, sheets of a workbook, what Word last counted; 1 for everything else.
    pages: u64,
    words: usize,
    chunks: Vec<Chunk<'a>>,
}

/// What was taken out of a document.
struct Extract {
    text: Text,
    title: Option<String>,
    pages: u64,
}

/// Takes the text out of a document and cuts it into chunks.
///
/// Params, all optional: `chunk_size_chars` (1000), `overlap_chars` (0), `document` (inline text, used without a file).
pub fn process_document(request: &Request, file: Option<File>) -> Result<Vec<u8>, Failure> {
    let size = request.count_param("chunk_size_chars", CHUNK_SIZE_CHARS)?;
    let cutting = Cutting::new(size, request.count_param("overlap_chars", 0)?)?;
    let Extract { text, title, pages } = match (file, request.text_param("document")?) {
        (Some(file), _) => of_file(request, file)?,
        (None, Some(document)) if !document.trim().is_empty() => {
            of_text(sniff_text(document), document)?
        }
        (None, Some(_)) => return Err(Failure::unparseable("the document is empty")),
        (None, None) => {
            return Err(Failure::params(
                "process_document needs a file or the param document",
            ));
        }
    };
    let chunks = cutting.cut(text.as_str(), text.pages())?;
    let report = Report {
        status: "success",
        chunks_created: chunks.len(),
        title: title.or_else(|| first_line(text.as_str())),
        language: language::detect(text.as_str()),
        pages,
        words: text.as_str().split_whitespace().count(),
        chunks,
    };
    serde_json::to_vec(&report)
        .map_err(|_| Failure::new(Code::Crashed, "the result could not be written"))
}

fn of_file(request: &Request, file: File) -> Result<Extract, Failure> {
    let mut input = Input::new(file)?;
    match sniff(&mut input, request.media_type().as_deref())? {
        Format::Pdf => {
            let pdf = pdf::read(&input.into_bytes(DOCUMENT_MAX_BYTES)?)?;
            Ok(Extract {
                text: pdf.text,
                title: pdf.title,
                pages: pdf.pages,
            })
        }
        Format::Docx => {
            let docx = docx::read(input)?;
            Ok(Extract {
                text: docx.text,
                title: docx.title,
                pages: docx.pages.unwrap_or(1),
            })
        }
        Format::Xlsx => of_workbook(|visit| workbook::walk(input, visit)),
        Format::Ods => of_workbook(|visit| ods::walk(input, visit)),
        format @ (Format::Html | Format::Text) => {
            let bytes = input.into_bytes(DOCUMENT_MAX_BYTES)?;
            let meta = if format == Format::Html {
                html::declared_charset(&bytes)
            } else {
                None
            };
            let (text, _) = charset::decode(&bytes, None, request.charset().or(meta.as_deref()))?;
            of_text(format, &text)
        }
    }
}

fn of_text(format: Format, content: &str) -> Result<Extract, Failure> {
    if format == Format::Html {
        let html = html::read(content)?;
        return Ok(Extract {
            text: html.text,
            title: html.title,
            pages: 1,
        });
    }
    let mut text = Text::default();
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    text.push(&content.replace("\r\n", "\n").replace('\r', "\n"))?;
    let title = first_heading(text.as_str());
    Ok(Extract {
        text,
        title,
        pages: 1,
    })
}

/// A line per row with tabs between the cells, a page per sheet with its name on top.
fn of_workbook(
    walk: impl FnOnce(&mut dyn FnMut(Part<'_>) -> Result<(), Failure>) -> Result<(), Failure>,
) -> Result<Extract, Failure> {
    let mut text = Text::default();
    walk(&mut |part| match part {
        Part::Sheet(name) => {
            text.start_page()?;
            text.push(name)?;
            text.end_paragraph()
        }
        Part::Row { cells, .. } => add_row(&mut text, cells),
        Part::Damaged { .. } => Err(Failure::unparseable("the workbook is damaged")),
    })?;
    let pages = text.pages().len() as u64;
    Ok(Extract {
        text,
        title: None,
        pages,
    })
}

fn add_row(text: &mut Text, cells: &[Cell<'_>]) -> Result<(), Failure> {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            text.push("\t")?;
        }
        text.push(&cell.text)?;
    }
    text.end_line()
}
