use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use crate::parsers::Request;

/// The longest request line that a child reads, in bytes.
const LINE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How the child ended, as its exit status.
pub mod exit {
    pub const DONE: u8 = 0;
    /// The request line is not one (EX_USAGE).
    pub const USAGE: u8 = 64;
    /// Standard output holds a failure instead of a result (EX_DATAERR).
    pub const REFUSED: u8 = 65;
    /// The parent is gone; nobody sees this.
    pub const ORPHANED: u8 = 69;
}

/// What the parent sends as one line of JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Envelope<R = Request> {
    #[serde(flatten)]
    pub request: R,
    pub limits: Option<Limits>,
}

impl Envelope {
    pub fn line(request: &Request, limits: &Limits) -> io::Result<Vec<u8>> {
        let envelope = Envelope {
            request,
            limits: Some(limits.clone()),
        };
        let mut line = serde_json::to_vec(&envelope)?;
        line.push(b'\n');
        Ok(line)
    }

    pub fn read(source: impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        source.take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
        Ok(serde_json::from_slice(&line)?)
    }
}
