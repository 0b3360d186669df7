//! Text of PDF documents. lopdf reads the objects; the content streams are read here, because where its text extraction
//! puts the spaces, and what it makes of fonts, forms and ligatures, loses too many words.

mod cmap;
mod drawing;
mod encoding;
mod font;
mod layout;
mod matrix;
mod metrics;
mod page;
mod tokens;

use lopdf::{Document, Error, LoadOptions};

use self::page::Reading;
use super::failure::{Code, Failure};
use super::text::{Text, title};

/// What one of the file's object streams may unpack to, in bytes.
const OBJECTS_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Pages beyond this one are left out.
const PAGES_MAX: usize = 100_000;

/// A PDF's text, page by page.
pub struct Pdf {
    pub text: Text,
    pub title: Option<String>,
    pub pages: u64,
}

/// Reads a PDF. One that opens without a password is read even if it is encrypted.
pub fn read(bytes: &[u8]) -> Result<Pdf, Failure> {
    let options = LoadOptions::with_max_decompressed_size(OBJECTS_MAX_BYTES);
    let document =
        Document::load_mem_with_options(bytes, options).map_err(|error| refusal(&error))?;
    if document.is_encrypted() && document.encryption_state.is_none() {
        return Err(encrypted());
    }
    let mut text = Text::default();
    let mut reading = Reading::new(&document);
    let mut pages = 0;
    for page in document.page_iter().take(PAGES_MAX) {
        pages += 1;
        text.start_page()?;
        reading.page(page, &mut text)?;
    }
    if pages == 0 {
        return Err(Failure::unparseable("the PDF has no pages"));
    }
    Ok(Pdf {
        text,
        title: info_title(&document),
        pages,
    })
}

fn info_title(document: &Document) -> Option<String> {
    let info = document
        .trailer
        .get_deref(b"Info", document)
        .ok()?
        .as_dict()
        .ok()?;
    let raw = info.get_deref(b"Title", document).ok()?;
    title(&lopdf::decode_text_string(raw).ok()?)
}

fn refusal(error: &Error) -> Failure {
    match error {
        Error::InvalidPassword
        | Error::Decryption(_)
        | Error::UnsupportedSecurityHandler(_)
        | Error::AlreadyEncrypted => encrypted(),
        Error::Decompress(lopdf::DecompressError::MemoryLimitExceeded { .. }) => too_much(),
        _ => Failure::unparseable("the PDF is damaged"),
    }
}

fn encrypted() -> Failure {
    Failure::new(Code::Encrypted, "the PDF is encrypted with a password")
}

fn too_much() -> Failure {
    Failure::new(Code::ArchiveLimit, "the PDF unpacks to too much")
}
