use std::io::{BufReader, Read, Seek};

use super::archive::Archive;
use super::failure::Failure;
use super::input::Input;
use super::text::{Text, title};
use super::xml::{self, Element, Part};

/// A Word document's text.
pub struct Docx {
    pub text: Text,
    pub title: Option<String>,
    /// As Word counted them when it saved; never laid out here.
    pub pages: Option<u64>,
}

/// Reads a DOCX: paragraphs, tables (a line per row, cells between tabs), text boxes, then foot- and endnotes. Deleted
/// text, field codes and comments are left out.
pub fn read(mut input: Input) -> Result<Docx, Failure> {
    let size = input.size;
    let mut archive = Archive::open(BufReader::new(input.rewound()?), size)?;
    let main = main_part(&mut archive)?;
    let mut text = Text::default();
    let found = read_part(&mut archive, &main, &mut text)?;
    if !found {
        return Err(Failure::unparseable("the document has no content"));
    }
    let folder = main
        .rsplit_once('/')
        .map_or("word", |(folder, _)| folder)
        .to_owned();
    for notes in ["footnotes", "endnotes"] {
        read_part(&mut archive, &format!("{folder}/{notes}.xml"), &mut text)?;
    }
    let title = single(&mut archive, "docProps/core.xml", "title")?.and_then(|text| title(&text));
    let pages = single(&mut archive, "docProps/app.xml", "Pages")?
        .and_then(|count| count.trim().parse().ok());
    Ok(Docx {
        text,
        title,
        pages: pages.filter(|count| (1..1_000_000).contains(count)),
    })
}

/// The part that the package names as its document.
fn main_part<R: Read + Seek>(archive: &mut Archive<R>) -> Result<String, Failure> {
    let mut target = None;
    if let Some(relations) = archive.entry("_rels/.rels")? {
        xml::walk(relations, |part| {
            if let Part::Start(element) = part
                && element.name() == "Relationship"
                && element
                    .attribute("Type")
                    .is_some_and(|kind| kind.ends_with("/officeDocument"))
            {
                target = element.attribute("Target");
            }
            Ok(())
        })?;
    }
    let target = target.map(|target| target.trim_start_matches('/').to_owned());
    Ok(target
        .filter(|target| archive.contains(target))
        .unwrap_or_else(|| "word/document.xml".to_owned()))
}

/// The content of the only element with this name, if there is one.
fn single<R: Read + Seek>(
    archive: &mut Archive<R>,
    part: &str,
    name: &str,
) -> Result<Option<String>, Failure> {
    const MAX_BYTES: usize = 4096;
    let Some(source) = archive.entry(part)? else {
        return Ok(None);
    };
    let (mut inside, mut content) = (false, None::<String>);
    let outcome = xml::walk(source, |part| {
        match part {
            Part::Start(element) => inside = element.name() == name,
            Part::End(_) => inside = false,
            Part::Text(text) if inside => {
                let content = content.get_or_insert_default();
                if content.len() < MAX_BYTES {
                    content.push_str(text);
                }
            }
            Part::Text(_) => {}
        }
        Ok(())
    });
    // Damaged properties are no reason to refuse the text.
    Ok(outcome.ok().and(content))
}

fn read_part<R: Read + Seek>(
    archive: &mut Archive<R>,
    name: &str,
    text: &mut Text,
) -> Result<bool, Failure> {
    let Some(source) = archive.entry(name)? else {
        return Ok(false);
    };
    let mut story = Story {
        text,
        skipped: 0,
        run_text: false,
        cells: Vec::new(),
    };
    xml::walk(source, |part| match part {
        Part::Start(element) => story.start(&element),
        Part::End(name) => story.end(name),
        Part::Text(text) => story.write(text),
    })?;
    story.text.end_paragraph()?;
    Ok(true)
}

/// A flow of paragraphs.
struct Story<'a> {
    text: &'a mut Text,
    /// Depth below an element whose text does not count, from 1; 0 outside.
    skipped: usize,
    /// Inside an element that holds text.
    run_text: bool,
    /// For each open table row: how many of its cells are done.
    cells: Vec<usize>,
}

impl Story<'_> {
    fn start(&mut self, element: &Element<'_>) -> Result<(), Failure> {
        if self.skipped > 0 {
            self.skipped += 1;
            return Ok(());
        }
        match element.name() {
            // A fallback repeats what the choice before it says, in an older way.
            "Fallback" | "del" | "moveFrom" | "instrText" | "delText" => self.skipped = 1,
            // Tab stops are settings, not text.
            "pPr" | "rPr" | "tblPr" | "sectPr" => self.skipped = 1,
            "t" => self.run_text = true,
            "tab" | "ptab" => self.text.push("\t")?,
            "br" | "cr" => self.text.push("\n")?,
            "noBreakHyphen" => self.text.push("-")?,
            "sym" => {
                let code = element
                    .attribute("char")
                    .and_then(|code| u32::from_str_radix(&code, 16).ok());
                // Symbol fonts sit in the private use area; below it the code is the character.
                if let Some(symbol) = code
                    .and_then(char::from_u32)
                    .filter(|symbol| !('\u{e000}'..='\u{f8ff}').contains(symbol))
                {
                    self.text.push(symbol.encode_utf8(&mut [0; 4]))?;
                }
            }
            "tbl" => self.text.end_line()?,
            "tr" => self.cells.push(0),
            "tc" if self.cells.last().is_some_and(|done| *done > 0) => self.text.push("\t")?,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, name: &str) -> Result<(), Failure> {
        if self.skipped > 0 {
            self.skipped -= 1;
            return Ok(());
        }
        match name {
            "t" => self.run_text = false,
            // Paragraphs of one cell stay on the row's line.
            "p" if !self.cells.is_empty() => self.text.push(" ")?,
            "p" => self.text.end_paragraph()?,
            "tc" => {
                if let Some(done) = self.cells.last_mut() {
                    *done += 1;
                }
            }
            "tr" => {
                self.cells.pop();
                if self.cells.is_empty() {
                    self.text.end_line()?
                } else {
                    self.text.push(" ")?
                }
            }
            "tbl" if self.cells.is_empty() => self.text.end_paragraph()?,
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        if self.run_text && self.skipped == 0 {
            self.text.push(text)
        } else {
            Ok(())
        }
    }
}
