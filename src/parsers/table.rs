use std::fs::File;
use std::io::Read;

use serde::Serialize;

use super::charset::{self, Decoded};
use super::delimited;
use super::delimiter;
use super::failure::{Code, Failure};
use super::input::Input;
use super::jsonl;
use super::ods;
use super::profile::{Profile, Ragged, TableReport};
use super::request::Request;
use super::sniff::{Format, sniff};
use super::workbook::{self, Part};

/// The result of `process_file`.
#[derive(Serialize)]
struct Report {
    status: &'static str,
    format: FormatReport,
    /// That of the file, or of the first sheet with rows.
    #[serde(flatten)]
    table: TableReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    sheets: Option<Vec<Sheet>>,
}

#[derive(Serialize)]
struct FormatReport {
    kind: &'static str,
    encoding: Option<String>,
    delimiter: Option<String>,
}

#[derive(Serialize)]
struct Sheet {
    name: String,
    #[serde(flatten)]
    table: TableReport,
}

/// Describes a table: how many rows, what its columns hold, what is wrong with it.
///
/// Params, all optional: `delimiter` (one ASCII character), `encoding` (a WHATWG label), `header` (whether the first row
/// names the columns). Without them each is found out.
pub fn process_file(request: &Request, file: Option<File>) -> Result<Vec<u8>, Failure> {
    let file = file.ok_or_else(|| Failure::params("process_file needs a file"))?;
    let mut input = Input::new(file)?;
    let report = match sniff(&mut input, None)? {
        Format::Text => text(request, input)?,
        Format::Xlsx => workbook(request, "xlsx", |visit| workbook::walk(input, visit))?,
        Format::Ods => workbook(request, "ods", |visit| ods::walk(input, visit))?,
        Format::Pdf | Format::Docx | Format::Html => {
            return Err(Failure::unsupported(
                "the file is a document, not a table; process_document reads it",
            ));
        }
    };
    serde_json::to_vec(&report)
        .map_err(|_| Failure::new(Code::Crashed, "the result could not be written"))
}

fn text(request: &Request, mut input: Input) -> Result<Report, Failure> {
    let chosen = request.text_param("encoding")?;
    let head = input.head.clone();
    let encoding = charset::detect(input.rewound()?, &head, chosen, request.charset())?;
    let mut start = String::new();
    let _ = Decoded::new(head.as_slice(), encoding).read_to_string(&mut start)?;
    let source = Decoded::new(input.into_file()?, encoding);

    let mut used = None;
    let (kind, profile) = match Notation::of(&start) {
        Notation::Lines => ("jsonl", jsonl::read_lines(source)?),
        Notation::Array => ("json", jsonl::read_array(source)?),
        Notation::Objects => ("json", jsonl::read_objects(source)?),
        Notation::Delimited => {
            let wanted = match request.text_param("delimiter")? {
                Some(text) => Some(
                    delimiter::chosen(text)
                        .ok_or_else(|| Failure::params("delimiter must be one ASCII character"))?,
                ),
                None => None,
            };
            let (profile, delimiter) =
                delimited::read(source, wanted, request.flag_param("header")?)?;
            used = Some(char::from(delimiter).to_string());
            ("csv", profile)
        }
    };
    let table = profile.report();
    if table.columns.is_empty() && table.problems.is_empty() {
        return Err(Failure::unparseable("the file has no rows"));
    }
    let format = FormatReport {
        kind,
        encoding: Some(charset::name(encoding)),
        delimiter: used,
    };
    Ok(Report {
        status: "success",
        format,
        table,
        sheets: None,
    })
}

/// How a table stands in a text.
#[derive(PartialEq, Eq)]
enum Notation {
    Delimited,
    /// One JSON object a line.
    Lines,
    /// A JSON array of objects.
    Array,
    /// JSON objects over several lines.
    Objects,
}

impl Notation {
    fn of(start: &str) -> Self {
        let text = start.trim_start();
        if let Some(rest) = text.strip_prefix('[') {
            return if rest.trim_start().starts_with(['{', ']']) {
                Self::Array
            } else {
                Self::Delimited
            };
        }
        if !text.starts_with('{') {
            return Self::Delimited;
        }
        let lines = text.lines().filter(|line| !line.trim().is_empty()).take(20);
        let (opening, all) = lines.fold((0, 0), |(opening, all), line| {
            (
                opening + usize::from(line.trim_start().starts_with('{')),
                all + 1,
            )
        });
        if jsonl::starts_with_object_line(text) || (all > 1 && opening * 2 > all) {
            Self::Lines
        } else {
            Self::Objects
        }
    }
}

/// Profiles each sheet of what `walk` walks.
fn workbook(
    request: &Request,
    kind: &'static str,
    walk: impl FnOnce(&mut dyn FnMut(Part<'_>) -> Result<(), Failure>) -> Result<(), Failure>,
) -> Result<Report, Failure> {
    let header = request.flag_param("header")?;
    let mut sheets: Vec<Sheet> = Vec::new();
    let mut open: Option<(String, Profile)> = None;
    walk(&mut |part| {
        match (part, &mut open) {
            (Part::Sheet(name), _) => {
                sheets.extend(open.take().map(Sheet::from));
                open = Some((name.to_owned(), Profile::new(header, Ragged::IsFine)));
            }
            (
                Part::Row {
                    number,
                    cells,
                    errors,
                },
                Some((_, profile)),
            ) => {
                for error in errors {
                    profile.problems.add(number, || error.clone());
                }
                profile.add_row(number, cells);
            }
            (Part::Damaged { number }, Some((_, profile))) => {
                profile
                    .problems
                    .add(number, || "the sheet is damaged; nothing after it was read");
            }
            (Part::Row { .. } | Part::Damaged { .. }, None) => {}
        }
        Ok(())
    })?;
    sheets.extend(open.take().map(Sheet::from));
    let table = match sheets
        .iter()
        .find(|sheet| !sheet.table.columns.is_empty())
        .or(sheets.first())
    {
        Some(sheet) => sheet.table.clone(),
        None => return Err(Failure::unparseable("the workbook has no sheets")),
    };
    let format = FormatReport {
        kind,
        encoding: None,
        delimiter: None,
    };
    Ok(Report {
        status: "success",
        format,
        table,
        sheets: Some(sheets),
    })
}

impl From<(String, Profile)> for Sheet {
    fn from((name, profile): (String, Profile)) -> Self {
        Self {
            name,
            table: profile.report(),
        }
    }
}
