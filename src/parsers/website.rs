use std::collections::HashSet;
use std::fs::File;

use serde::Serialize;
use url::Url;

use super::charset;
use super::document::DOCUMENT_MAX_BYTES;
use super::failure::{Code, Failure};
use super::html::{self, Html};
use super::input::Input;
use super::language;
use super::request::Request;
use super::sniff::{Format, sniff};
use super::text::{Text, first_line};

/// Links of one page that are given.
const LINKS_MAX: usize = 10_000;
/// Longer ones are left out, in bytes.
const LINK_LENGTH_MAX: usize = 2048;

/// What is worth knowing of a page. The language is what its text looks like, else what the page says of itself.
#[derive(Serialize)]
struct Report<'a> {
    title: Option<String>,
    text: &'a str,
    /// Absolute, each once, in the order of the page.
    links: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
}

/// Takes title, text and links out of a page.
///
/// Params: `url`, where the page is from.
pub fn scrape_website(request: &Request, file: Option<File>) -> Result<Vec<u8>, Failure> {
    let url = request
        .text_param("url")?
        .and_then(|url| Url::parse(url).ok());
    let (Some(url), Some(file)) = (url, file) else {
        return Err(Failure::params("a page and its url are needed"));
    };
    let mut input = Input::new(file)?;
    let format = format(request, &mut input)?;
    let bytes = input.into_bytes(DOCUMENT_MAX_BYTES)?;
    let meta = match format {
        Format::Html => html::declared_charset(&bytes),
        _ => None,
    };
    let (source, _) = charset::decode(&bytes, None, request.charset().or(meta.as_deref()))?;
    let page = match format {
        Format::Html => html::read(&source)?,
        _ => plain(&source)?,
    };
    let text = page.text.as_str();
    let detected = language::detect(text).map(str::to_owned);
    let report = Report {
        text,
        links: links(&url, &page),
        language: detected.or_else(|| primary(page.language.as_deref()?)),
        title: page.title,
    };
    serde_json::to_vec(&report)
        .map_err(|_| Failure::new(Code::Crashed, "the result could not be written"))
}

/// By what its server says, or else by what it looks like.
fn format(request: &Request, input: &mut Input) -> Result<Format, Failure> {
    let unsupported = || Failure::unsupported("only HTML pages and plain text are read");
    match request.media_type().as_deref() {
        Some("text/html" | "application/xhtml+xml") => Ok(Format::Html),
        Some("text/plain") => Ok(Format::Text),
        Some(_) => Err(unsupported()),
        None => match sniff(input, None)? {
            format @ (Format::Html | Format::Text) => Ok(format),
            Format::Pdf | Format::Docx | Format::Xlsx | Format::Ods => Err(unsupported()),
        },
    }
}

fn plain(source: &str) -> Result<Html, Failure> {
    let mut text = Text::default();
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    text.push(&source.replace("\r\n", "\n").replace('\r', "\n"))?;
    Ok(Html {
        title: first_line(text.as_str()),
        text,
        links: Vec::new(),
        base: None,
        language: None,
    })
}

/// Only what leads to another page: no fragments, scripts or e-mail addresses.
fn links(url: &Url, page: &Html) -> Vec<String> {
    let base = page
        .base
        .as_deref()
        .and_then(|base| url.join(base.trim()).ok());
    let base = base.as_ref().unwrap_or(url);
    let mut seen = HashSet::new();
    let absolute = |reference: &String| {
        let mut link = base.join(reference.trim()).ok()?;
        link.set_fragment(None);
        let fits =
            matches!(link.scheme(), "http" | "https") && link.as_str().len() <= LINK_LENGTH_MAX;
        fits.then(|| String::from(link))
    };
    let found = page.links.iter().filter_map(absolute);
    found
        .filter(|link| seen.insert(link.clone()))
        .take(LINKS_MAX)
        .collect()
}

/// `de` of `de-CH`; nothing when it is no language tag.
fn primary(tag: &str) -> Option<String> {
    let primary = tag.trim().split(['-', '_']).next().unwrap_or_default();
    let legal =
        (2..=3).contains(&primary.len()) && primary.bytes().all(|b| b.is_ascii_alphabetic());
    legal.then(|| primary.to_ascii_lowercase())
}
