//! Bodies of answers, read up to a bound.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderValue};

use super::error::EgressError;

/// Takes a body in, unpacks it, and passes it on.
enum Sink<W: Write> {
    Plain(Bounded<W>),
    Gzip(Box<MultiGzDecoder<Bounded<W>>>),
}

/// Passes bytes on up to a bound.
struct Bounded<W> {
    target: W,
    written: usize,
    bytes_max: usize,
    /// Why it takes no more.
    refused: Option<EgressError>,
}

impl<W: Write> Sink<W> {
    /// For a body with this `Content-Encoding`.
    fn new(
        encoding: Option<&HeaderValue>,
        bytes_max: usize,
        target: W,
    ) -> Result<Self, EgressError> {
        let bounded = Bounded {
            target,
            written: 0,
            bytes_max,
            refused: None,
        };
        let encoding = encoding.map_or(Ok("identity"), HeaderValue::to_str);
        let encoding = encoding.map_err(|_| EgressError::UnknownEncoding)?;
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Sink::Plain(bounded)),
            "gzip" | "x-gzip" => Ok(Sink::Gzip(Box::new(MultiGzDecoder::new(bounded)))),
            _ => Err(EgressError::UnknownEncoding),
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), EgressError> {
        let written = match self {
            Sink::Plain(bounded) => bounded.write_all(chunk),
            Sink::Gzip(decoder) => decoder.write_all(chunk),
        };
        written.map_err(|_| self.failure())
    }

    fn finish(self) -> Result<W, EgressError> {
        let mut decoder = match self {
            Sink::Plain(bounded) => return Ok(bounded.target),
            Sink::Gzip(decoder) => decoder,
        };
        if decoder.try_finish().is_err() {
            return Err(Sink::Gzip(decoder).failure());
        }
        let bounded = decoder.finish().map_err(|_| EgressError::Damaged)?;
        Ok(bounded.target)
    }

    fn failure(&self) -> EgressError {
        let refused = self.bounded().refused.clone();
        refused.unwrap_or(EgressError::Damaged)
    }

    fn bounded(&self) -> &Bounded<W> {
        match self {
            Sink::Plain(bounded) => bounded,
            Sink::Gzip(decoder) => decoder.get_ref(),
        }
    }
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if chunk.len() > self.bytes_max - self.written {
            self.refused = Some(EgressError::BodyTooLarge(self.bytes_max));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Err(error) = self.target.write_all(chunk) {
            tracing::error!(%error, "the body of an answer cannot be kept");
            self.refused = Some(EgressError::NotKept);
            return Err(error);
        }
        self.written += chunk.len();
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

/// Reads to the end, or until it is too much: neither what is sent nor what it unpacks to may be.
pub async fn read<W: Write>(
    mut response: Response,
    bytes_max: usize,
    target: W,
) -> Result<W, EgressError> {
    let too_large = || EgressError::BodyTooLarge(bytes_max);
    if response.content_length().unwrap_or(0) > bytes_max as u64 {
        return Err(too_large());
    }
    let encoding = response.headers().get(CONTENT_ENCODING).cloned();
    // Nothing at all is nothing packed, too.
    let Some(first) = response.chunk().await? else {
        return Ok(target);
    };
    let mut sink = Sink::new(encoding.as_ref(), bytes_max, target)?;
    let (mut chunk, mut received) = (Some(first), 0_usize);
    while let Some(bytes) = chunk {
        received = received.saturating_add(bytes.len());
        if received > bytes_max {
            return Err(too_large());
        }
        sink.take(&bytes)?;
        chunk = response.chunk().await?;
    }
    sink.finish()
}
