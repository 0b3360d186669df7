use lopdf::{Dictionary, Document, Encoding, Object};

/// What each code of a simple font reads as.
pub type Table = [Option<char>; 256];

/// A predefined encoding: `WinAnsiEncoding`, `MacRomanEncoding`, `MacExpertEncoding` or `StandardEncoding`.
pub fn predefined(name: &[u8]) -> Table {
    let font = dictionary(&[
        (b"Type", Object::Name(b"Font".to_vec())),
        (b"Encoding", Object::Name(name.to_vec())),
    ]);
    let document = Document::new();
    let mut table = [None; 256];
    if let Ok(Encoding::OneByteEncoding(glyphs)) = font.get_font_encoding(&document) {
        for (slot, glyph) in table.iter_mut().zip(glyphs) {
            *slot = glyph.and_then(|glyph| char::from_u32(u32::from(glyph.utf16_code_unit())));
        }
    }
    // Codes that the encodings leave out are used for these all the same.
    if name == b"WinAnsiEncoding" {
        table[0xa0] = Some('\u{a0}');
        table[0xad] = Some('-');
    }
    table
}

/// What a glyph's name means: of the Adobe glyph list, or `uni20AC`, `u1F600`; a suffix such as `.sc` does not count,
/// and of `f_f_i` each part does.
pub fn glyph_text(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| name.len() <= 64)?;
    let stem = name.split('.').next().filter(|stem| !stem.is_empty())?;
    if stem.contains('_') {
        return stem.split('_').map(part_text).collect::<Option<String>>();
    }
    part_text(stem)
}

fn part_text(part: &str) -> Option<String> {
    if let Some(character) = listed(part) {
        return Some(character.to_string());
    }
    if let Some(digits) = part
        .strip_prefix("uni")
        .filter(|digits| digits.len() >= 4 && digits.len() % 4 == 0 && digits.is_ascii())
    {
        let units: Result<Vec<u16>, _> = (0..digits.len())
            .step_by(4)
            .map(|at| u16::from_str_radix(&digits[at..at + 4], 16))
            .collect();
        return units.ok().map(|units| String::from_utf16_lossy(&units));
    }
    let code = part
        .strip_prefix('u')
        .filter(|digits| (4..=6).contains(&digits.len()))?;
    u32::from_str_radix(code, 16)
        .ok()
        .and_then(char::from_u32)
        .map(String::from)
}

/// Asks lopdf's glyph list, which it only opens to fonts: one whose code 0 is the glyph.
fn listed(name: &str) -> Option<char> {
    let differences = Object::Array(vec![
        Object::Integer(0),
        Object::Name(name.as_bytes().to_vec()),
    ]);
    let encoding = dictionary(&[(b"Differences", differences)]);
    let font = dictionary(&[
        (b"Type", Object::Name(b"Font".to_vec())),
        (b"Encoding", Object::Dictionary(encoding)),
    ]);
    let document = Document::new();
    let Ok(Encoding::Differences(differences)) = font.get_font_encoding(&document) else {
        return None;
    };
    let glyph = differences.map.get(&0)?;
    char::from_u32(u32::from(glyph.utf16_code_unit()))
}

fn dictionary(entries: &[(&[u8], Object)]) -> Dictionary {
    let mut dictionary = Dictionary::new();
    for (name, value) in entries {
        dictionary.set(name.to_vec(), value.clone());
    }
    dictionary
}

/// The encoding that a Type 1 font program brings along, in its part that is not encrypted: `dup 65 /A put`.
pub fn of_type1(program: &[u8]) -> Vec<(u8, Vec<u8>)> {
    use super::tokens::{Operand, Token, Tokens};
    let end = program
        .windows(5)
        .position(|window| window == b"eexec")
        .unwrap_or(program.len());
    let clear = &program[..end.min(64 * 1024)];
    let Some(start) = clear.windows(9).position(|window| window == b"/Encoding") else {
        return Vec::new();
    };
    let mut last: [Option<Operand>; 2] = [None, None];
    let mut entries = Vec::new();
    for token in Tokens::new(&clear[start + 9..]) {
        match token {
            Token::Operand(operand) => {
                last.swap(0, 1);
                last[1] = Some(operand);
            }
            Token::Operator(b"put") => {
                if let [
                    Some(Operand::Number(code @ 0.0..=255.0)),
                    Some(Operand::Name(name)),
                ] = &last
                {
                    entries.push((*code as u8, name.clone()));
                }
            }
            Token::Operator(b"def" | b"readonly") if !entries.is_empty() => break,
            Token::Operator(_) => {}
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glyph_names_are_read() {
        for (name, text) in [
            ("A", Some("A")),
            ("eacute", Some("é")),
            ("uni20AC", Some("€")),
            ("u1F600", Some("😀")),
            ("a.sc", Some("a")),
            ("f_f_i", Some("ffi")),
            ("g123", None),
            (".notdef", None),
            ("unié12", None),
        ] {
            assert_eq!(glyph_text(name.as_bytes()).as_deref(), text, "{name}");
        }
        assert_eq!(predefined(b"WinAnsiEncoding")[0x80], Some('€'));
        assert_eq!(predefined(b"StandardEncoding")[b'\'' as usize], Some('’'));
        assert_eq!(
            of_type1(b"/Encoding 256 array\ndup 65 /A put\ndup 66/B put\nreadonly def"),
            [(65, b"A".to_vec()), (66, b"B".to_vec())]
        );
    }
}
