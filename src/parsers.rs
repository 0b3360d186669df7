//! Pure, synchronous parsers of foreign files.
//!
//! They run inside the child process of [`crate::sandbox`] only: a damaged file may still end the process (no memory,
//! stack overflow), and that must never be the server's. What they can see coming they refuse as a typed [`Failure`].
//!
//! - The type of a file is decided by its content, then by its declared media type, never by its name.
//! - Every bound is enforced while reading, never by what a header says.
//! - Tables are read as a stream: memory does not grow with the number of rows.

mod archive;
mod cell;
mod charset;
mod chunks;
mod column;
mod delimited;
mod delimiter;
mod document;
mod docx;
mod failure;
mod header;
mod html;
mod input;
mod jsonl;
mod language;
mod ods;
mod pdf;
mod problems;
mod profile;
mod request;
mod sniff;
mod table;
mod text;
mod website;
mod workbook;
mod xml;

pub use failure::{Code, Failure};
pub use request::{FileRef, Kind, Request};

use std::fs::File;

/// Parses what `request` describes and returns the result as JSON.
///
/// `file` is the opened file of the request, if it has one; its position must be the start.
pub fn run(kind: Kind, request: &Request, file: Option<File>) -> Result<Vec<u8>, Failure> {
    match kind {
        Kind::ProcessFile => table::process_file(request, file),
        Kind::ProcessDocument => document::process_document(request, file),
        Kind::ScrapeWebsite => website::scrape_website(request, file),
    }
}
