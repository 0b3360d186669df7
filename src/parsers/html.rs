use std::cell::RefCell;
use std::rc::Rc;

use lol_html::html_content::{TextChunk, TextType};
use lol_html::{DocumentContentHandlers, HtmlRewriter, MemorySettings, Settings, element, end_tag};
use quick_xml::escape::resolve_html5_entity;

use super::failure::{Code, Failure};
use super::text::{Text, title};

/// What the tokenizer may keep in memory, in bytes: more than any real page nests.
const MEMORY_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Links of one page that are read.
const LINKS_MAX: usize = 50_000;
/// Where a `<meta charset>` is looked for, in bytes (HTML standard).
const META_BYTES: usize = 1024;

/// Elements that nobody sees.
const HIDDEN: [&str; 6] = ["head", "template", "noscript", "svg", "object", "datalist"];
/// Elements around which a paragraph ends.
const PARAGRAPHS: [&str; 17] = [
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "table",
    "blockquote",
    "pre",
    "ul",
    "ol",
    "dl",
    "section",
    "article",
    "hr",
    "figure",
];
/// Elements around which a line ends.
const LINES: [&str; 22] = [
    "div",
    "li",
    "tr",
    "dt",
    "dd",
    "header",
    "footer",
    "main",
    "nav",
    "aside",
    "address",
    "form",
    "fieldset",
    "legend",
    "details",
    "summary",
    "figcaption",
    "caption",
    "option",
    "body",
    "br",
    "title",
];

/// A page's visible text, and where it leads.
pub struct Html {
    pub text: Text,
    pub title: Option<String>,
    /// As they are written: most are relative.
    pub links: Vec<String>,
    /// What they are relative to, if not to the page's own address.
    pub base: Option<String>,
    /// As the page says.
    pub language: Option<String>,
}

/// Takes the visible text out of a page: no scripts, styles or templates; lines end where blocks do.
pub fn read(source: &str) -> Result<Html, Failure> {
    let page = Rc::new(RefCell::new(Page::default()));
    let (at_element, at_text) = (Rc::clone(&page), Rc::clone(&page));
    let settings = Settings::new()
        .append_element_content_handler(element!("*", move |element| {
            let name = element.tag_name();
            let ends = element.can_have_content() && !element.is_self_closing();
            at_element
                .borrow_mut()
                .refer(&name, |attribute| element.get_attribute(attribute));
            if at_element.borrow_mut().start(&name, ends)
                && let Some(handlers) = element.end_tag_handlers()
            {
                let at_end = Rc::clone(&at_element);
                handlers.push(end_tag!(move |_| Ok(at_end.borrow_mut().end(&name)?)));
            }
            Ok(())
        }))
        .append_document_content_handler(
            DocumentContentHandlers::default()
                .text(move |chunk: &mut TextChunk<'_>| Ok(at_text.borrow_mut().add(chunk)?)),
        )
        .with_memory_settings(MemorySettings::new().with_max_allowed_memory_usage(MEMORY_MAX_BYTES))
        .with_strict(false);
    let mut rewriter = HtmlRewriter::new(settings, |_: &[u8]| {});
    let outcome = rewriter
        .write(source.as_bytes())
        .and_then(|()| rewriter.end());
    let mut page = page.take();
    match (outcome, page.failure.take()) {
        (_, Some(failure)) => Err(failure),
        (Err(_), None) => Err(Failure::new(
            Code::MemoryLimit,
            "the page is nested too deeply",
        )),
        (Ok(()), None) => Ok(Html {
            title: title(&page.title),
            text: page.text,
            links: page.links,
            base: page.base,
            language: page.language,
        }),
    }
}

/// The encoding that a page's own `<meta>` names.
pub fn declared_charset(bytes: &[u8]) -> Option<String> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(META_BYTES)]).to_ascii_lowercase();
    let after = &start[start.find("charset=")? + "charset=".len()..];
    let label = after.trim_start_matches(['"', '\'', ' ']);
    let end = label
        .find(|character: char| !character.is_ascii_alphanumeric() && !"-_:".contains(character))?;
    Some(label[..end].to_owned())
}

#[derive(Default)]
struct Page {
    text: Text,
    title: String,
    /// Open elements that nobody sees.
    hidden: usize,
    /// Open elements that keep their white space.
    preformatted: usize,
    in_title: bool,
    /// Text of the node that is being read: it may come in pieces.
    node: String,
    links: Vec<String>,
    base: Option<String>,
    language: Option<String>,
    failure: Option<Failure>,
}

impl Page {
    /// Keeps what leads elsewhere, and what the page says of itself.
    fn refer(&mut self, name: &str, attribute: impl Fn(&str) -> Option<String>) {
        let value = |name: &str| Some(decoded(&attribute(name)?, Within::Attribute));
        match name {
            "a" | "area" if self.hidden == 0 && self.links.len() < LINKS_MAX => {
                self.links.extend(value("href"));
            }
            "base" if self.base.is_none() => self.base = value("href"),
            "html" if self.language.is_none() => self.language = value("lang"),
            _ => {}
        }
    }

    /// Whether the element's end matters.
    fn start(&mut self, name: &str, ends: bool) -> bool {
        self.in_title = name == "title";
        let hidden = HIDDEN.contains(&name);
        let preformatted = name == "pre" || name == "textarea";
        if ends {
            self.hidden += usize::from(hidden);
            self.preformatted += usize::from(preformatted);
        }
        let outcome = self.space_out(name);
        self.keep(outcome);
        if matches!(name, "td" | "th") {
            let outcome = self.text.push("\t");
            self.keep(outcome);
        }
        ends && (hidden || preformatted || LINES.contains(&name) || PARAGRAPHS.contains(&name))
    }

    fn end(&mut self, name: &str) -> Result<(), Failure> {
        self.hidden = self
            .hidden
            .saturating_sub(usize::from(HIDDEN.contains(&name)));
        self.preformatted = self
            .preformatted
            .saturating_sub(usize::from(name == "pre" || name == "textarea"));
        self.in_title = false;
        self.space_out(name)
    }

    fn space_out(&mut self, name: &str) -> Result<(), Failure> {
        match name {
            _ if PARAGRAPHS.contains(&name) => self.text.end_paragraph(),
            _ if LINES.contains(&name) => self.text.end_line(),
            _ => Ok(()),
        }
    }

    fn add(&mut self, chunk: &TextChunk<'_>) -> Result<(), Failure> {
        let kind = chunk.text_type();
        if matches!(kind, TextType::ScriptData | TextType::RawText) {
            return Ok(());
        }
        self.node.push_str(chunk.as_str());
        if !chunk.last_in_text_node() {
            return Ok(());
        }
        let node = std::mem::take(&mut self.node);
        let node = if matches!(kind, TextType::Data | TextType::RCData) {
            decoded(&node, Within::Text)
        } else {
            node
        };
        let outcome = match () {
            () if self.in_title && kind == TextType::RCData => {
                if self.title.is_empty() {
                    self.title = node;
                }
                Ok(())
            }
            () if self.hidden > 0 => Ok(()),
            () if self.preformatted > 0 => self.text.push(&node),
            () => self.flow(&node),
        };
        self.keep(outcome.clone());
        outcome
    }

    /// Runs of white space become one space, and none at the start of a line.
    fn flow(&mut self, node: &str) -> Result<(), Failure> {
        let mut words = node.split([' ', '\t', '\n', '\r', '\x0c']).peekable();
        while let Some(word) = words.next() {
            self.text.push(word)?;
            let written = self.text.as_str();
            if words.peek().is_some()
                && !written.is_empty()
                && !written.ends_with([' ', '\n', '\t'])
            {
                self.text.push(" ")?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, outcome: Result<(), Failure>) {
        if let Err(failure) = outcome {
            self.failure.get_or_insert(failure);
        }
    }
}

/// Where a character reference stands: in an attribute it must end with a semicolon, since `?a=1&copy=2` is none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Text,
    Attribute,
}

/// Resolves character references.
fn decoded(text: &str, within: Within) -> String {
    const LONGEST: usize = 33;
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest
            .bytes()
            .take(LONGEST)
            .position(|byte| !byte.is_ascii_alphanumeric() && byte != b'#')
            .unwrap_or(rest.len().min(LONGEST));
        let end = rest.floor_char_boundary(end);
        let is_one = within == Within::Text || rest[end..].starts_with(';');
        let resolved = match rest[..end].strip_prefix('#') {
            _ if !is_one => None,
            Some(number) => character(number).map(String::from),
            None => resolve_html5_entity(&rest[..end]).map(str::to_owned),
        };
        match resolved {
            Some(resolved) => {
                result.push_str(&resolved);
                rest = rest[end..].strip_prefix(';').unwrap_or(&rest[end..]);
            }
            None => result.push('&'),
        }
    }
    result.push_str(rest);
    result
}

/// The numbers 128 to 159 mean what they mean in windows-1252 (HTML standard).
fn character(number: &str) -> Option<char> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
        None => number.parse().ok()?,
    };
    match u8::try_from(code) {
        Ok(byte @ 128..=159) => encoding_rs::WINDOWS_1252.decode(&[byte]).0.chars().next(),
        _ => char::from_u32(code).filter(|character| *character != '\0'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_text_is_taken() {
        let page = "<!doctype html><html><head><title>A &amp; B</title><style>p{}</style><script>var x = '<p>no</p>';</script>\
            </head><body><h1>Head\n line</h1><p>One&nbsp;two &#8364; &#x80; <b>bo</b>ld</p><ul><li>a<li>b</ul>\
            <noscript>no</noscript><template><p>no</p></template><table><tr><td>1</td><td>2</td></tr></table>x<br>y</body></html>";
        let html = read(page).expect("a page");
        assert_eq!(html.title.as_deref(), Some("A & B"));
        assert_eq!(
            html.text.as_str(),
            "Head line\n\nOne\u{a0}two € € bold\n\na\nb\n\n\t1\t2\n\nx\ny\n"
        );
    }

    #[test]
    fn deep_nesting_is_read_or_refused_quickly() {
        let started = std::time::Instant::now();
        let _ = read(&"<div>".repeat(100_000));
        assert!(started.elapsed().as_secs() < 10);
    }

    #[test]
    fn charsets_are_declared() {
        assert_eq!(
            declared_charset(b"<meta charset=\"ISO-8859-1\">").as_deref(),
            Some("iso-8859-1")
        );
        assert_eq!(
            declared_charset(b"<meta content='text/html; charset=utf-8'>").as_deref(),
            Some("utf-8")
        );
        assert_eq!(declared_charset(b"<p>"), None);
    }
}
