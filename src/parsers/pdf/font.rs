use std::collections::HashMap;

use encoding_rs::Encoding;
use lopdf::{Dictionary, Document, Object};

use super::cmap::Cmap;
use super::encoding::{Table, glyph_text, of_type1, predefined};
use super::metrics;

/// A font's streams unpack to at most this, in bytes.
const STREAM_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Widths beyond this many are dropped.
const WIDTHS_MAX: usize = 100_000;
/// Where nothing says how wide a glyph is, in thousandths.
const USUAL_WIDTH: f64 = 500.0;

/// Turns the bytes of a text into characters with widths.
pub struct Font {
    kind: Kind,
    to_unicode: Cmap,
    widths: HashMap<u32, f64>,
    default_width: f64,
    /// Size of a thousandth of the font, which is other only for fonts made of drawings.
    scale: f64,
    /// Height of the font at size 1, which is other only for fonts made of drawings: their widest glyph's width.
    pub height: f64,
}

enum Kind {
    Simple { texts: Box<[Option<String>; 256]> },
    Composite { codes: Codes },
}

/// How a composite font's codes are to be read.
enum Codes {
    /// Two bytes, which are the glyph's number.
    Identity,
    Embedded(Cmap),
    /// An encoding of characters, two bytes (UTF-16) or one or two.
    Known(&'static Encoding),
}

/// One character code of a text.
#[derive(Debug)]
pub struct Glyph {
    pub text: String,
    /// Of the font's size.
    pub width: f64,
    /// The single byte 32, to which word spacing applies.
    pub is_space_byte: bool,
}

impl Font {
    pub fn load(document: &Document, font: &Dictionary) -> Self {
        let to_unicode = stream(document, font, b"ToUnicode")
            .map(|bytes| Cmap::parse(&bytes))
            .unwrap_or_default();
        if name(document, font, b"Subtype") == Some(b"Type0") {
            return Self::composite(document, font, to_unicode);
        }
        let mut loaded = Self {
            kind: Kind::Simple {
                texts: Box::new(simple_texts(document, font)),
            },
            to_unicode,
            widths: HashMap::new(),
            default_width: USUAL_WIDTH,
            scale: 0.001,
            height: 1.0,
        };
        loaded.load_simple_widths(document, font);
        loaded
    }

    pub fn glyphs(&self, bytes: &[u8], mut each: impl FnMut(Glyph)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (code, length, text) = self.next(rest);
            let glyph_number = match &self.kind {
                Kind::Composite {
                    codes: Codes::Embedded(cmap),
                } => cmap.glyph(code).unwrap_or(code),
                _ => code,
            };
            let width = self
                .widths
                .get(&glyph_number)
                .copied()
                .unwrap_or(self.default_width)
                * self.scale;
            each(Glyph {
                text,
                width,
                is_space_byte: length == 1 && rest[0] == b' ',
            });
            rest = &rest[length..];
        }
    }

    /// The next code, its length in bytes, and what it reads as.
    fn next(&self, bytes: &[u8]) -> (u32, usize, String) {
        let mapped = |code| {
            self.to_unicode
                .text(code)
                .filter(|text| !text.trim_matches('\0').is_empty())
        };
        match &self.kind {
            Kind::Simple { texts } => {
                let code = u32::from(bytes[0]);
                let text = mapped(code).or_else(|| texts[usize::from(bytes[0])].clone());
                (code, 1, text.unwrap_or_default())
            }
            Kind::Composite {
                codes: Codes::Identity,
            } => {
                let (code, length) = two_bytes(bytes);
                (code, length, mapped(code).unwrap_or_default())
            }
            Kind::Composite {
                codes: Codes::Embedded(cmap),
            } => {
                let (code, length) = cmap.next_code(bytes, 2);
                (code, length, mapped(code).unwrap_or_default())
            }
            Kind::Composite {
                codes: Codes::Known(encoding),
            } => {
                let double = *encoding == encoding_rs::UTF_16BE || !bytes[0].is_ascii();
                let (code, length) = if double {
                    two_bytes(bytes)
                } else {
                    (u32::from(bytes[0]), 1)
                };
                let text = mapped(code).unwrap_or_else(|| {
                    encoding
                        .decode_without_bom_handling(&bytes[..length])
                        .0
                        .into_owned()
                });
                (code, length, text)
            }
        }
    }

    fn composite(document: &Document, font: &Dictionary, to_unicode: Cmap) -> Self {
        let codes = match get(document, font, b"Encoding") {
            Some(Object::Stream(stream)) => {
                match stream.get_plain_content_with_limit(STREAM_MAX_BYTES) {
                    Ok(bytes) => Codes::Embedded(Cmap::parse(&bytes)),
                    Err(_) => Codes::Identity,
                }
            }
            Some(Object::Name(name)) => known(name).map_or(Codes::Identity, Codes::Known),
            _ => Codes::Identity,
        };
        let mut loaded = Self {
            kind: Kind::Composite { codes },
            to_unicode,
            widths: HashMap::new(),
            default_width: 1000.0,
            scale: 0.001,
            height: 1.0,
        };
        let descendant = get(document, font, b"DescendantFonts").and_then(|object| match object {
            Object::Array(fonts) => dictionary(document, fonts.first()?),
            object => dictionary(document, object),
        });
        if let Some(descendant) = descendant {
            loaded.default_width = number(document, descendant, b"DW").unwrap_or(1000.0);
            if let Some(Object::Array(widths)) = get(document, descendant, b"W") {
                loaded.load_composite_widths(document, widths);
            }
        }
        loaded
    }

    /// `first [w w …]` and `first last w`.
    fn load_composite_widths(&mut self, document: &Document, widths: &[Object]) {
        let mut rest = widths;
        while let [first, second, after @ ..] = rest {
            let Some(first) = float(document, first) else {
                return;
            };
            let first = first as u32;
            rest = after;
            match resolve(document, second) {
                Object::Array(list) => {
                    for (code, width) in (first..).zip(list) {
                        self.set_width(code, float(document, width));
                    }
                }
                last => {
                    let (Some(last), [width, after @ ..]) = (float(document, last), after) else {
                        return;
                    };
                    let width = float(document, width);
                    for code in first..=(last as u32).min(first.saturating_add(0xffff)) {
                        self.set_width(code, width);
                    }
                    rest = after;
                }
            }
        }
    }

    fn load_simple_widths(&mut self, document: &Document, font: &Dictionary) {
        let descriptor =
            get(document, font, b"FontDescriptor").and_then(|object| dictionary(document, object));
        if let Some(missing) =
            descriptor.and_then(|descriptor| number(document, descriptor, b"MissingWidth"))
        {
            self.default_width = missing;
        }
        if name(document, font, b"Subtype") == Some(b"Type3")
            && let Some(Object::Array(matrix)) = get(document, font, b"FontMatrix")
            && let Some(scale) = matrix
                .first()
                .and_then(|scale| float(document, scale))
                .filter(|scale| *scale != 0.0)
        {
            self.scale = scale.abs();
        }
        if let Some(Object::Array(widths)) = get(document, font, b"Widths") {
            let first = number(document, font, b"FirstChar").unwrap_or(0.0) as u32;
            for (code, width) in (first..256).zip(widths) {
                self.set_width(code, float(document, width));
            }
            if self.scale != 0.001 {
                self.height = self
                    .widths
                    .values()
                    .fold(0.0_f64, |most, width| most.max(width.abs()))
                    * self.scale;
            }
        } else if let Some(base) =
            name(document, font, b"BaseFont").and_then(|base| std::str::from_utf8(base).ok())
            && let Some(widths) = metrics::standard(base)
        {
            for (code, width) in (32..).zip(widths) {
                self.set_width(code, Some(f64::from(*width)));
            }
        }
    }

    fn set_width(&mut self, code: u32, width: Option<f64>) {
        if self.widths.len() < WIDTHS_MAX
            && let Some(width) = width
        {
            self.widths.insert(code, width);
        }
    }
}

/// What the codes of a simple font read as, by its encoding and the names of its glyphs.
fn simple_texts(document: &Document, font: &Dictionary) -> [Option<String>; 256] {
    let encoding = get(document, font, b"Encoding");
    let described = encoding.and_then(|object| dictionary(document, object));
    let base = match encoding {
        Some(Object::Name(name)) => Some(name.as_slice()),
        _ => described.and_then(|encoding| name(document, encoding, b"BaseEncoding")),
    };
    let table: Table = match base {
        Some(
            base @ (b"WinAnsiEncoding" | b"MacRomanEncoding" | b"MacExpertEncoding"
            | b"StandardEncoding"),
        ) => predefined(base),
        _ if name(document, font, b"Subtype") == Some(b"TrueType") => {
            predefined(b"WinAnsiEncoding")
        }
        _ => predefined(b"StandardEncoding"),
    };
    let mut texts: [Option<String>; 256] =
        std::array::from_fn(|code| table[code].map(String::from));
    if base.is_none() {
        for (code, glyph) in own_encoding(document, font) {
            texts[usize::from(code)] = glyph_text(&glyph);
        }
    }
    if let Some(Object::Array(differences)) =
        described.and_then(|encoding| get(document, encoding, b"Differences"))
    {
        let mut code = 0_usize;
        for entry in differences.iter().take(1024) {
            match resolve(document, entry) {
                Object::Integer(start) => code = usize::try_from(*start).unwrap_or(256),
                Object::Name(glyph) => {
                    if let Some(slot) = texts.get_mut(code) {
                        *slot = glyph_text(glyph).or_else(|| numbered(glyph, slot.take()));
                    }
                    code += 1;
                }
                _ => {}
            }
        }
    }
    texts
}

/// Made-up names such as `g65` or `C0065` say nothing, so the code counts; `.notdef` says that there is nothing.
fn numbered(glyph: &[u8], by_code: Option<String>) -> Option<String> {
    if glyph == b".notdef" { None } else { by_code }
}

fn own_encoding(document: &Document, font: &Dictionary) -> Vec<(u8, Vec<u8>)> {
    let descriptor =
        get(document, font, b"FontDescriptor").and_then(|object| dictionary(document, object));
    descriptor
        .and_then(|descriptor| stream(document, descriptor, b"FontFile"))
        .map(|program| of_type1(&program))
        .unwrap_or_default()
}

/// The predefined CMaps whose codes are characters in an encoding that is known.
fn known(name: &[u8]) -> Option<&'static Encoding> {
    let name = std::str::from_utf8(name).ok()?;
    match () {
        () if name.contains("UCS2") || name.contains("UTF16") => Some(encoding_rs::UTF_16BE),
        () if name.contains("RKSJ") => Some(encoding_rs::SHIFT_JIS),
        () if name.starts_with("GBK") || name.starts_with("GB-") || name.starts_with("GBpc") => {
            Some(encoding_rs::GBK)
        }
        () if name.contains("B5") || name.starts_with("HKscs") => Some(encoding_rs::BIG5),
        () if name.starts_with("KSC") => Some(encoding_rs::EUC_KR),
        () if name == "EUC-H" || name == "EUC-V" => Some(encoding_rs::EUC_JP),
        () => None,
    }
}

fn two_bytes(bytes: &[u8]) -> (u32, usize) {
    match bytes {
        [first, second, ..] => (u32::from(*first) << 8 | u32::from(*second), 2),
        _ => (u32::from(bytes[0]), 1),
    }
}

fn resolve<'a>(document: &'a Document, object: &'a Object) -> &'a Object {
    document
        .dereference(object)
        .map_or(object, |(_, object)| object)
}

fn get<'a>(document: &'a Document, dictionary: &'a Dictionary, key: &[u8]) -> Option<&'a Object> {
    dictionary
        .get(key)
        .ok()
        .map(|object| resolve(document, object))
}

fn dictionary<'a>(document: &'a Document, object: &'a Object) -> Option<&'a Dictionary> {
    resolve(document, object).as_dict().ok()
}

fn name<'a>(document: &'a Document, dictionary: &'a Dictionary, key: &[u8]) -> Option<&'a [u8]> {
    get(document, dictionary, key)?.as_name().ok()
}

fn number(document: &Document, dictionary: &Dictionary, key: &[u8]) -> Option<f64> {
    float(document, get(document, dictionary, key)?)
}

fn float(document: &Document, object: &Object) -> Option<f64> {
    match resolve(document, object) {
        Object::Integer(integer) => Some(*integer as f64),
        Object::Real(real) => Some(f64::from(*real)),
        _ => None,
    }
}

fn stream(document: &Document, dictionary: &Dictionary, key: &[u8]) -> Option<Vec<u8>> {
    let Object::Stream(stream) = get(document, dictionary, key)? else {
        return None;
    };
    stream.get_plain_content_with_limit(STREAM_MAX_BYTES).ok()
}
