use std::collections::HashMap;

use super::tokens::{Operand, Token, Tokens};

/// Entries of a CMap beyond this many are dropped.
const ENTRIES_MAX: usize = 200_000;
/// A code stands for at most this many bytes of UTF-16.
const TARGET_MAX_BYTES: usize = 64;

/// A mapping from character codes, out of a `ToUnicode` or `Encoding` stream.
#[derive(Debug, Default)]
pub struct Cmap {
    /// Lengths of codes in bytes, with their first and last code.
    spaces: Vec<(usize, u32, u32)>,
    texts: HashMap<u32, String>,
    /// First and last code, and the text of the first one; sorted.
    text_ranges: Vec<(u32, u32, Vec<u16>)>,
    /// First and last code, and the glyph number of the first one; sorted.
    glyph_ranges: Vec<(u32, u32, u32)>,
}

impl Cmap {
    pub fn parse(bytes: &[u8]) -> Self {
        let mut cmap = Self::default();
        let mut operands: Vec<Operand> = Vec::new();
        for token in Tokens::new(bytes) {
            match token {
                Token::Operand(operand) => {
                    if operands.len() < ENTRIES_MAX {
                        operands.push(operand);
                    }
                }
                Token::Operator(operator) => {
                    cmap.apply(operator, &operands);
                    operands.clear();
                }
            }
        }
        cmap.text_ranges.sort_by_key(|(first, _, _)| *first);
        cmap.glyph_ranges.sort_by_key(|(first, _, _)| *first);
        cmap
    }

    /// What the code reads as.
    pub fn text(&self, code: u32) -> Option<String> {
        if let Some(text) = self.texts.get(&code) {
            return Some(text.clone());
        }
        let (first, _, target) = find(&self.text_ranges, code, |(first, last, _)| (*first, *last))?;
        let mut units = target.clone();
        let last = units.last_mut()?;
        *last = last.wrapping_add((code - first) as u16);
        Some(String::from_utf16_lossy(&units))
    }

    pub fn glyph(&self, code: u32) -> Option<u32> {
        let (first, _, glyph) = find(&self.glyph_ranges, code, |(first, last, _)| (*first, *last))?;
        Some(glyph + (code - first))
    }

    /// The next code and its length in bytes; `default_length` where no code space fits.
    pub fn next_code(&self, bytes: &[u8], default_length: usize) -> (u32, usize) {
        let code = |length: usize| {
            bytes[..length]
                .iter()
                .fold(0_u32, |code, byte| code << 8 | u32::from(*byte))
        };
        for length in 1..=bytes.len().min(4) {
            let candidate = code(length);
            let fits = |(size, first, last): &(usize, u32, u32)| {
                *size == length
                    && (0..length).all(|at| {
                        let byte = |code: u32| code >> (8 * at) & 0xff;
                        (byte(*first)..=byte(*last)).contains(&byte(candidate))
                    })
            };
            if self.spaces.iter().any(fits) {
                return (candidate, length);
            }
        }
        let length = default_length.clamp(1, bytes.len());
        (code(length), length)
    }

    fn apply(&mut self, operator: &[u8], operands: &[Operand]) {
        match operator {
            b"endcodespacerange" => {
                for pair in operands.chunks_exact(2).take(256) {
                    if let (Some(first), Some(last)) = (pair[0].bytes(), pair[1].bytes()) {
                        self.spaces.push((first.len(), number(first), number(last)));
                    }
                }
            }
            b"endbfchar" => {
                for pair in operands.chunks_exact(2) {
                    if let (Some(code), Some(target)) = (pair[0].bytes(), pair[1].bytes()) {
                        self.add_text(number(code), &utf16(target));
                    }
                }
            }
            b"endbfrange" => {
                for triple in operands.chunks_exact(3) {
                    self.add_range(triple);
                }
            }
            b"endcidchar" => {
                for pair in operands.chunks_exact(2) {
                    if let (Some(code), Some(glyph)) = (pair[0].bytes(), pair[1].number()) {
                        self.add_glyphs(number(code), number(code), glyph as u32);
                    }
                }
            }
            b"endcidrange" => {
                for triple in operands.chunks_exact(3) {
                    if let (Some(first), Some(last), Some(glyph)) =
                        (triple[0].bytes(), triple[1].bytes(), triple[2].number())
                    {
                        self.add_glyphs(number(first), number(last), glyph as u32);
                    }
                }
            }
            _ => {}
        }
    }

    fn add_range(&mut self, triple: &[Operand]) {
        let (Some(first), Some(last)) = (triple[0].bytes(), triple[1].bytes()) else {
            return;
        };
        let (first, last) = (number(first), number(last));
        match &triple[2] {
            Operand::Bytes(target) if self.text_ranges.len() < ENTRIES_MAX => {
                self.text_ranges.push((first, last, utf16(target)));
            }
            Operand::Array(targets) => {
                for (code, target) in (first..=last).zip(targets) {
                    if let Some(target) = target.bytes() {
                        self.add_text(code, &utf16(target));
                    }
                }
            }
            _ => {}
        }
    }

    fn add_text(&mut self, code: u32, units: &[u16]) {
        if self.texts.len() < ENTRIES_MAX {
            self.texts.insert(code, String::from_utf16_lossy(units));
        }
    }

    fn add_glyphs(&mut self, first: u32, last: u32, glyph: u32) {
        // Glyph numbers have 16 bits.
        if self.glyph_ranges.len() < ENTRIES_MAX
            && first <= last
            && last - first <= 0xffff
            && glyph <= 0xffff
        {
            self.glyph_ranges.push((first, last, glyph));
        }
    }
}

/// The range that holds `code`, of those that are sorted by their first code.
fn find<T>(ranges: &[T], code: u32, bounds: impl Fn(&T) -> (u32, u32)) -> Option<&T> {
    let after = ranges.partition_point(|range| bounds(range).0 <= code);
    ranges[..after]
        .iter()
        .rev()
        .take(8)
        .find(|range| code <= bounds(range).1)
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |code, byte| code << 8 | u32::from(*byte))
}

/// One byte alone stands for itself.
fn utf16(bytes: &[u8]) -> Vec<u16> {
    if let [byte] = bytes {
        return vec![u16::from(*byte)];
    }
    bytes[..bytes.len().min(TARGET_MAX_BYTES)]
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_mapped() {
        let cmap = Cmap::parse(
            b"1 begincodespacerange <00> <7F> <8140> <9FFC> endcodespacerange\n2 beginbfchar <01> <0041> <02> <00660066> endbfchar\n\
            2 beginbfrange <10> <12> <0061> <20> <21> [<0031> <0032>] endbfrange 1 begincidrange <8140> <8150> 633 endcidrange",
        );
        let text = |code| cmap.text(code).unwrap_or_default();
        assert_eq!(
            [text(1), text(2), text(0x12), text(0x21), text(0x30)],
            ["A", "ff", "c", "2", ""]
        );
        assert_eq!(cmap.glyph(0x8142), Some(635));
        assert_eq!(cmap.next_code(&[0x81, 0x42, 1], 2), (0x8142, 2));
        assert_eq!(cmap.next_code(&[0x41, 0x42], 2), (0x41, 1));
        assert_eq!(cmap.next_code(&[0xff], 2), (0xff, 1));
    }
}
