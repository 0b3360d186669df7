use std::io::{self, Read};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{CoderResult, Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::failure::Failure;

/// How many bytes with text beyond ASCII are shown to the detector.
const DETECTOR_MAX_BYTES: usize = 1024 * 1024;
/// Size of the blocks that are read, in bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// Finds the encoding of a text. In this order: a byte order mark; `chosen` by the task's params; UTF-16 without a mark
/// (every second byte is zero); UTF-8, when it is valid or has 10 times as many valid sequences as invalid ones;
/// `declared` by the media type; what chardetng takes it for. Reads `source` to its end, in constant memory.
pub fn detect(
    source: &mut impl Read,
    head: &[u8],
    chosen: Option<&str>,
    declared: Option<&str>,
) -> Result<&'static Encoding, Failure> {
    if let Some((encoding, _)) = Encoding::for_bom(head) {
        return Ok(encoding);
    }
    if let Some(label) = chosen {
        return Encoding::for_label(label.as_bytes())
            .ok_or_else(|| Failure::params("encoding is not a known one"));
    }
    if let Some(encoding) = utf16_without_mark(head) {
        return Ok(encoding);
    }
    let mut scan = Scan::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let count = read_block(source, &mut block)?;
        if count == 0 {
            break;
        }
        scan.add(&block[..count]);
    }
    Ok(scan.verdict(declared.and_then(|label| Encoding::for_label(label.as_bytes()))))
}

/// `utf-8`, `windows-1252` and so on.
pub fn name(encoding: &'static Encoding) -> String {
    encoding.name().to_ascii_lowercase()
}

/// Decodes a whole text in memory; the flag says whether some bytes were not valid.
pub fn decode(
    bytes: &[u8],
    chosen: Option<&str>,
    declared: Option<&str>,
) -> Result<(String, bool), Failure> {
    let head = &bytes[..bytes.len().min(4096)];
    let encoding = detect(&mut &*bytes, head, chosen, declared)?;
    let (text, _, malformed) = encoding.decode(bytes);
    Ok((text.into_owned(), malformed))
}

pub fn utf16_without_mark(head: &[u8]) -> Option<&'static Encoding> {
    let head = &head[..head.len().min(4096) & !1];
    let zeros = |parity: usize| {
        head.iter()
            .skip(parity)
            .step_by(2)
            .filter(|byte| **byte == 0)
            .count()
    };
    let (even, odd, units) = (zeros(0), zeros(1), head.len() / 2);
    match () {
        () if units < 2 => None,
        () if odd * 10 >= units * 7 && even * 20 <= units => Some(UTF_16LE),
        () if even * 10 >= units * 7 && odd * 20 <= units => Some(UTF_16BE),
        () => None,
    }
}

/// What was seen of a text so far.
struct Scan {
    detector: EncodingDetector,
    shown: usize,
    /// Bytes of a sequence that the last block broke off.
    carry: Vec<u8>,
    valid_sequences: usize,
    invalid_sequences: usize,
}

impl Scan {
    fn new() -> Self {
        Self {
            detector: EncodingDetector::new(Iso2022JpDetection::Allow),
            shown: 0,
            carry: Vec::new(),
            valid_sequences: 0,
            invalid_sequences: 0,
        }
    }

    fn add(&mut self, block: &[u8]) {
        if self.carry.is_empty() && block.is_ascii() && !block.contains(&0x1b) {
            return;
        }
        if self.shown < DETECTOR_MAX_BYTES {
            self.detector.feed(block, false);
            self.shown += block.len();
        }
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(block);
        let mut rest = bytes.as_slice();
        loop {
            let (valid, error) = match std::str::from_utf8(rest) {
                Ok(text) => (text.len(), None),
                Err(error) => (error.valid_up_to(), Some(error.error_len())),
            };
            self.valid_sequences += rest[..valid].iter().filter(|byte| **byte >= 0xc0).count();
            match error {
                None => return,
                Some(None) => return self.carry.extend_from_slice(&rest[valid..]),
                Some(Some(length)) => {
                    self.invalid_sequences += 1;
                    rest = &rest[valid + length..];
                }
            }
        }
    }

    fn verdict(mut self, declared: Option<&'static Encoding>) -> &'static Encoding {
        let invalid = self.invalid_sequences + usize::from(!self.carry.is_empty());
        if invalid == 0 && self.detector.feed(b"", true) {
            return UTF_8;
        }
        if invalid > 0 && self.valid_sequences >= 10 * invalid {
            return UTF_8;
        }
        if let Some(declared) = declared {
            return declared;
        }
        let _ = invalid > 0 && self.detector.feed(b"", true);
        let allowed = if invalid == 0 {
            Utf8Detection::Allow
        } else {
            Utf8Detection::Deny
        };
        self.detector.guess(None, allowed)
    }
}

/// Reads as UTF-8 what `source` holds in another encoding. A byte order mark is left out; bytes that are not valid
/// become U+FFFD.
pub struct Decoded<R> {
    source: R,
    decoder: Decoder,
    block: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    ready: Vec<u8>,
    ready_start: usize,
    /// Whether some bytes were not valid so far.
    pub malformed: bool,
}

impl<R: Read> Decoded<R> {
    pub fn new(source: R, encoding: &'static Encoding) -> Self {
        Self {
            source,
            decoder: encoding.new_decoder_with_bom_removal(),
            block: vec![0; BLOCK_BYTES],
            start: 0,
            end: 0,
            ended: false,
            ready: vec![0; 0],
            ready_start: 0,
            malformed: false,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.ready.resize(BLOCK_BYTES * 3, 0);
        self.ready_start = 0;
        if self.start == self.end && !self.ended {
            self.start = 0;
            self.end = read_block(&mut self.source, &mut self.block)?;
            self.ended = self.end == 0;
        }
        let input = &self.block[self.start..self.end];
        let (result, read, written, malformed) =
            self.decoder
                .decode_to_utf8(input, &mut self.ready, self.ended);
        self.malformed |= malformed;
        self.start += read;
        self.ready.truncate(written);
        if self.ended && result == CoderResult::InputEmpty {
            self.decoder = UTF_8.new_decoder_without_bom_handling();
        }
        Ok(())
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready_start == self.ready.len() {
            let ended = self.ended;
            self.fill()?;
            if ended && self.ready.is_empty() {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.ready.len() - self.ready_start);
        buffer[..count].copy_from_slice(&self.ready[self.ready_start..self.ready_start + count]);
        self.ready_start += count;
        Ok(count)
    }
}

/// Fills the block as far as the source goes.
fn read_block(source: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(bytes: &[u8]) -> (String, String, bool) {
        let encoding = detect(&mut &*bytes, bytes, None, None).expect("no params");
        let mut decoded = Decoded::new(bytes, encoding);
        let mut text = String::new();
        decoded.read_to_string(&mut text).expect("UTF-8");
        (name(encoding), text, decoded.malformed)
    }

    #[test]
    fn encodings_are_found() {
        let text = "Größe;Straße\nzwölf;für\n";
        let utf16 =
            |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let latin = encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
        for (bytes, expected) in [
            (text.as_bytes().to_vec(), "utf-8"),
            ([b"\xef\xbb\xbf", text.as_bytes()].concat(), "utf-8"),
            (utf16(u16::to_le_bytes), "utf-16le"),
            (utf16(u16::to_be_bytes), "utf-16be"),
            (
                [b"\xff\xfe".to_vec(), utf16(u16::to_le_bytes)].concat(),
                "utf-16le",
            ),
            (latin, "windows-1252"),
        ] {
            let (found, decoded, malformed) = round(&bytes);
            assert_eq!(
                (found.as_str(), decoded.as_str(), malformed),
                (expected, text, false)
            );
        }
        assert_eq!(round(b"plain").0, "utf-8");
    }

    #[test]
    fn a_few_bad_bytes_do_not_change_the_encoding() {
        let bytes = [
            "ä".repeat(50).as_bytes(),
            b"\xff",
            "ö".repeat(50_000).as_bytes(),
        ]
        .concat();
        let (found, text, malformed) = round(&bytes);
        assert_eq!((found.as_str(), malformed), ("utf-8", true));
        assert_eq!(
            text.chars()
                .filter(|character| *character == '\u{fffd}')
                .count(),
            1
        );
    }
}
