use std::io::{BufRead, BufReader, Read};

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};

use super::failure::Failure;

/// The deepest nesting of elements.
const DEPTH_MAX: usize = 1_000;

/// What a document consists of, as far as text goes. Empty elements arrive as a start and an end.
pub enum Part<'a> {
    Start(Element<'a>),
    /// The local name of the element that ends.
    End(&'a str),
    Text(&'a str),
}

/// The start of an element; names are local, without a namespace prefix.
pub struct Element<'a> {
    start: &'a BytesStart<'a>,
}

impl Element<'_> {
    pub fn name(&self) -> &str {
        local(self.start.name().into_inner())
    }

    /// The value of the attribute with this local name, with references resolved.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.start
            .attributes()
            .flatten()
            .find(|attribute| local(attribute.key.into_inner()) == name)
            .map(|attribute| {
                let raw = &attribute.value;
                quick_xml::escape::unescape(raw)
                    .map_or_else(|_| raw.to_string(), |value| value.into_owned())
            })
    }
}

/// Walks an XML document and hands its parts to `visit`.
///
/// A document type declaration is refused, and with it every entity but the five that XML itself defines: nothing is
/// fetched and nothing expands.
pub fn walk(
    source: impl Read,
    mut visit: impl FnMut(Part<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut reader = Reader::from_reader(BufReader::new(source));
    let mut buffer = Vec::new();
    let mut depth = 0_usize;
    loop {
        buffer.clear();
        match next(&mut reader, &mut buffer)? {
            Event::Start(start) => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Failure::unparseable(
                        "the document's XML is nested too deeply",
                    ));
                }
                visit(Part::Start(Element { start: &start }))?;
            }
            Event::Empty(start) => {
                visit(Part::Start(Element { start: &start }))?;
                visit(Part::End(local(start.name().into_inner())))?;
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                visit(Part::End(local(end.name().into_inner())))?;
            }
            Event::Text(text) => visit(Part::Text(&text.xml10_content()))?,
            Event::CData(text) => visit(Part::Text(&text.xml10_content()))?,
            Event::GeneralRef(reference) => {
                let mut room = [0; 4];
                let text = match reference.resolve_char_ref() {
                    Ok(Some(character)) => &*character.encode_utf8(&mut room),
                    Ok(None) => {
                        resolve_xml_entity(&reference.xml10_content()).ok_or_else(|| {
                            Failure::unparseable("the document's XML uses an entity of its own")
                        })?
                    }
                    Err(_) => "\u{fffd}",
                };
                visit(Part::Text(text))?;
            }
            Event::DocType(_) => {
                return Err(Failure::unparseable(
                    "the document's XML has a document type declaration",
                ));
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return Ok(()),
        }
    }
}

fn next<'b>(
    reader: &mut Reader<impl BufRead>,
    buffer: &'b mut Vec<u8>,
) -> Result<Event<'b>, Failure> {
    reader.read_event_into(buffer).map_err(|error| match error {
        quick_xml::Error::Io(error) => match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Failure>())
        {
            Some(failure) => failure.clone(),
            None => damaged(),
        },
        _ => damaged(),
    })
}

fn damaged() -> Failure {
    Failure::unparseable("the document's XML is damaged")
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}
