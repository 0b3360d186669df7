use std::io::BufReader;

use super::archive::Archive;
use super::charset::utf16_without_mark;
use super::failure::{Code, Failure};
use super::input::Input;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Pdf,
    Docx,
    Xlsx,
    Ods,
    Html,
    /// Any other text, a table in text form included.
    Text,
}

/// Formats that are known but not read, by their first bytes.
const REFUSED: [(&[u8], &str); 16] = [
    (b"\x1f\x8b", "gzip files are not supported"),
    (b"BZh", "bzip2 files are not supported"),
    (b"\xfd7zXZ\0", "xz files are not supported"),
    (b"\x28\xb5\x2f\xfd", "zstd files are not supported"),
    (b"7z\xbc\xaf\x27\x1c", "7z archives are not supported"),
    (b"Rar!\x1a\x07", "RAR archives are not supported"),
    (b"\x89PNG\r\n", "images are not supported"),
    (b"\xff\xd8\xff", "images are not supported"),
    (b"GIF8", "images are not supported"),
    (b"RIFF", "media files are not supported"),
    (b"II*\0", "images are not supported"),
    (b"MM\0*", "images are not supported"),
    (b"{\\rtf", "RTF documents are not supported"),
    (b"\x7fELF", "programs are not supported"),
    (b"SQLite format 3\0", "databases are not supported"),
    (b"PAR1", "Parquet files are not supported"),
];

/// How a HTML page begins (WHATWG MIME Sniffing, 7.1), in lower case.
const HTML_STARTS: [&str; 18] = [
    "<!doctype html",
    "<html",
    "<head",
    "<script",
    "<iframe",
    "<h1",
    "<h2",
    "<div",
    "<font",
    "<table",
    "<a ",
    "<style",
    "<title",
    "<b>",
    "<body",
    "<br",
    "<p",
    "<meta",
];

/// The first bytes of old Office files, and of new ones with a password.
const COMPOUND_FILE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// Tells a file's format by its content; the declared media type only decides between kinds of text.
pub fn sniff(input: &mut Input, media_type: Option<&str>) -> Result<Format, Failure> {
    let head = input.head.as_slice();
    if head[..head.len().min(1024)]
        .windows(5)
        .any(|window| window == b"%PDF-")
    {
        return Ok(Format::Pdf);
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return office(input);
    }
    if head.starts_with(COMPOUND_FILE) {
        return Err(compound(input));
    }
    if let Some((_, message)) = REFUSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Failure::unsupported(*message));
    }
    let text = encoding_rs::Encoding::for_bom(head).is_some() || utf16_without_mark(head).is_some();
    if !text && head.contains(&0) {
        return Err(Failure::unsupported(
            "the file is neither a text nor in a format that is supported",
        ));
    }
    let hinted = matches!(media_type, Some("text/html" | "application/xhtml+xml"));
    Ok(if hinted || looks_like_html(head) {
        Format::Html
    } else {
        Format::Text
    })
}

/// The format of an inline text, which has no bytes to look at.
pub fn sniff_text(text: &str) -> Format {
    if looks_like_html(text.as_bytes()) {
        Format::Html
    } else {
        Format::Text
    }
}

fn office(input: &mut Input) -> Result<Format, Failure> {
    let size = input.size;
    let mut archive = Archive::open(BufReader::new(input.rewound()?), size)?;
    if archive.contains("word/document.xml") {
        return Ok(Format::Docx);
    }
    if archive.contains("xl/workbook.xml") {
        return Ok(Format::Xlsx);
    }
    if archive.contains("xl/workbook.bin") {
        return Err(Failure::unsupported("XLSB workbooks are not supported"));
    }
    if archive.contains("ppt/presentation.xml") {
        return Err(Failure::unsupported("presentations are not supported"));
    }
    let types = archive.start_of("[Content_Types].xml", 1 << 20)?;
    let names = |part: &str| String::from_utf8_lossy(&types).contains(part);
    if names("wordprocessingml.document.main+xml") {
        return Ok(Format::Docx);
    }
    if names("spreadsheetml.sheet.main+xml") {
        return Ok(Format::Xlsx);
    }
    match archive.start_of("mimetype", 128)?.as_slice() {
        mimetype if mimetype.starts_with(b"application/vnd.oasis.opendocument.spreadsheet") => {
            Ok(Format::Ods)
        }
        _ => Err(Failure::unsupported(
            "the archive is not a document that is supported",
        )),
    }
}

/// A new Office file with a password names its content in the compound file's directory, as UTF-16.
fn compound(input: &Input) -> Failure {
    let name: Vec<u8> = "EncryptedPackage"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    if input.head.windows(name.len()).any(|window| window == name) {
        Failure::new(Code::Encrypted, "the document is encrypted")
    } else {
        Failure::unsupported("Office files from before 2007 are not supported")
    }
}

fn looks_like_html(head: &[u8]) -> bool {
    let head = &head[..head.len().min(4096)];
    let (text, _, _) = encoding_rs::Encoding::for_bom(head)
        .map(|(encoding, _)| encoding)
        .or_else(|| utf16_without_mark(head))
        .unwrap_or(encoding_rs::UTF_8)
        .decode(head);
    let mut rest = text.trim_start();
    // A comment or an XML declaration may come first.
    loop {
        let end = match rest {
            _ if rest.starts_with("<!--") => rest.find("-->").map(|at| at + 3),
            _ if rest.starts_with("<?xml") => rest.find("?>").map(|at| at + 2),
            _ => None,
        };
        match end {
            Some(end) => rest = rest[end..].trim_start(),
            None => break,
        }
    }
    let start = rest
        .chars()
        .take(16)
        .collect::<String>()
        .to_ascii_lowercase();
    HTML_STARTS.iter().any(|tag| {
        let after = start.strip_prefix(tag).and_then(|rest| rest.chars().next());
        start.starts_with(tag)
            && !(tag.len() < 9
                && after.is_some_and(|after| after.is_alphanumeric() && !tag.ends_with(' ')))
    })
}
