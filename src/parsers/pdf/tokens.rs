/// The deepest nesting of arrays and dictionaries.
const DEPTH_MAX: usize = 16;
/// Further elements of an array are dropped.
const ELEMENTS_MAX: usize = 100_000;

/// A value in a content stream or a CMap.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    Number(f64),
    Bytes(Vec<u8>),
    Name(Vec<u8>),
    Array(Vec<Operand>),
    Dictionary(Vec<(Vec<u8>, Operand)>),
}

impl Operand {
    pub fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self {
            Some(*number)
        } else {
            None
        }
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self {
            Some(bytes)
        } else {
            None
        }
    }

    pub fn name(&self) -> Option<&[u8]> {
        if let Self::Name(name) = self {
            Some(name)
        } else {
            None
        }
    }
}

/// What comes next in a stream.
#[derive(Debug, PartialEq)]
pub enum Token<'a> {
    Operand(Operand),
    Operator(&'a [u8]),
}

/// Splits the PostScript-like text of content streams and CMaps. It takes whatever comes and never fails: damaged parts
/// are passed over.
pub struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Passes over an inline image; its `BI` was read.
    pub fn skip_image(&mut self) {
        for token in self.by_ref() {
            if token == Token::Operator(b"ID") {
                break;
            }
        }
        self.at = (self.at + 1).min(self.bytes.len());
        let data = &self.bytes[self.at..];
        let end = data.windows(2).enumerate().find(|(at, pair)| {
            let before = at.checked_sub(1).map_or(b'\n', |before| data[before]);
            *pair == b"EI"
                && is_space(before)
                && data.get(at + 2).is_none_or(|after| is_space(*after))
        });
        self.at += end.map_or(data.len(), |(at, _)| at + 2);
    }

    fn operand(&mut self, depth: usize) -> Option<Result<Operand, &'a [u8]>> {
        self.skip_space();
        let byte = *self.bytes.get(self.at)?;
        let operand = match byte {
            b'(' => Operand::Bytes(self.literal()),
            b'<' if self.bytes.get(self.at + 1) == Some(&b'<') => {
                self.at += 2;
                self.dictionary(depth)
            }
            b'<' => Operand::Bytes(self.hexadecimal()),
            b'[' => {
                self.at += 1;
                self.array(depth)
            }
            b'/' => Operand::Name(self.name()),
            b'+' | b'-' | b'.' | b'0'..=b'9' => match self.number() {
                Some(number) => Operand::Number(number),
                None => return Some(Err(self.word())),
            },
            _ => return Some(Err(self.word())),
        };
        Some(Ok(operand))
    }

    fn array(&mut self, depth: usize) -> Operand {
        let mut elements = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.bytes.get(self.at), None | Some(b']')) {
                self.at += 1;
                return Operand::Array(elements);
            }
            if depth >= DEPTH_MAX {
                self.at += 1;
                continue;
            }
            if let Some(Ok(element)) = self.operand(depth + 1)
                && elements.len() < ELEMENTS_MAX
            {
                elements.push(element);
            }
        }
    }

    fn dictionary(&mut self, depth: usize) -> Operand {
        let mut entries = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.bytes.get(self.at), None | Some(b'>')) {
                self.at += 2;
                return Operand::Dictionary(entries);
            }
            if depth >= DEPTH_MAX {
                self.at += 1;
                continue;
            }
            if let Some(Ok(Operand::Name(name))) = self.operand(depth + 1) {
                self.skip_space();
                if self.bytes.get(self.at) == Some(&b'>') {
                    continue;
                }
                if let Some(Ok(value)) = self.operand(depth + 1)
                    && entries.len() < ELEMENTS_MAX
                {
                    entries.push((name, value));
                }
            }
        }
    }

    fn literal(&mut self) -> Vec<u8> {
        self.at += 1;
        let (mut bytes, mut open) = (Vec::new(), 1);
        while let Some(byte) = self.take() {
            match byte {
                b'(' => open += 1,
                b')' => open -= 1,
                b'\\' => {
                    bytes.extend(self.escape());
                    continue;
                }
                _ => {}
            }
            if open == 0 {
                break;
            }
            bytes.push(byte);
        }
        bytes
    }

    fn escape(&mut self) -> Option<u8> {
        match self.take()? {
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'b' => Some(8),
            b'f' => Some(12),
            b'\r' => {
                self.at += usize::from(self.bytes.get(self.at) == Some(&b'\n'));
                None
            }
            b'\n' => None,
            digit @ b'0'..=b'7' => {
                let mut code = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.bytes.get(self.at) else {
                        break;
                    };
                    code = code * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                Some((code & 0xff) as u8)
            }
            other => Some(other),
        }
    }

    fn hexadecimal(&mut self) -> Vec<u8> {
        self.at += 1;
        let mut digits = Vec::new();
        while let Some(byte) = self.take().filter(|byte| *byte != b'>') {
            digits.extend(char::from(byte).to_digit(16));
        }
        digits
            .chunks(2)
            .map(|pair| (pair[0] << 4 | pair.get(1).copied().unwrap_or(0)) as u8)
            .collect()
    }

    fn name(&mut self) -> Vec<u8> {
        self.at += 1;
        let raw = self.regular();
        let mut name = Vec::with_capacity(raw.len());
        let mut rest = raw;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            let code = (*byte == b'#')
                .then(|| after.get(..2))
                .flatten()
                .and_then(|digits| {
                    Some(
                        (char::from(digits[0]).to_digit(16)? << 4
                            | char::from(digits[1]).to_digit(16)?) as u8,
                    )
                });
            if code.is_some() {
                rest = &after[2..];
            }
            name.push(code.unwrap_or(*byte));
        }
        name
    }

    /// A number; like viewers do, `--5` is -5 and `1.2.3` is 1.2.
    fn number(&mut self) -> Option<f64> {
        let start = self.at;
        let raw = self.regular();
        let signs = raw
            .iter()
            .take_while(|byte| matches!(byte, b'+' | b'-'))
            .count();
        let (mut value, mut scale, mut seen) = (0.0_f64, 0.0_f64, false);
        for byte in &raw[signs..] {
            match byte {
                b'0'..=b'9' => {
                    seen = true;
                    let digit = f64::from(byte - b'0');
                    if scale > 0.0 {
                        value += digit * scale;
                        scale /= 10.0;
                    } else {
                        value = value * 10.0 + digit;
                    }
                }
                b'.' if scale == 0.0 => scale = 0.1,
                b'.' | b'-' => break,
                _ => {
                    self.at = start;
                    return None;
                }
            }
        }
        let _ = seen;
        Some(if raw.first() == Some(&b'-') {
            -value
        } else {
            value
        })
    }

    fn word(&mut self) -> &'a [u8] {
        let word = self.regular();
        if word.is_empty() {
            // A stray delimiter.
            self.at += 1;
        }
        word
    }

    /// Bytes up to the next white space or delimiter.
    fn regular(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let length = rest
            .iter()
            .position(|byte| is_space(*byte) || b"()<>[]{}/%".contains(byte))
            .unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn skip_space(&mut self) {
        while let Some(byte) = self.bytes.get(self.at) {
            if *byte == b'%' {
                while self
                    .bytes
                    .get(self.at)
                    .is_some_and(|byte| !matches!(byte, b'\r' | b'\n'))
                {
                    self.at += 1;
                }
            } else if is_space(*byte) {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.operand(0).map(|found| match found {
            Ok(operand) => Token::Operand(operand),
            Err(word) => Token::Operator(word),
        })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | 9 | 10 | 12 | 13 | 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_streams_are_split() {
        let source = b"BT /F#31 12 Tf [(a\\(b\\051) -120.5 <4 1 4>] TJ % note\n(x\\\ny\\101) ' << /K (v) /L [1] >> BDC --5 .5 Td ET";
        let tokens: Vec<_> = Tokens::new(source).collect();
        assert_eq!(tokens[0], Token::Operator(b"BT"));
        assert_eq!(tokens[1], Token::Operand(Operand::Name(b"F1".to_vec())));
        let Token::Operand(Operand::Array(array)) = &tokens[4] else {
            panic!("an array")
        };
        assert_eq!(array[0].bytes(), Some(&b"a(b)"[..]));
        assert_eq!(array[1].number(), Some(-120.5));
        assert_eq!(array[2].bytes(), Some(&b"A@"[..]));
        assert_eq!(tokens[6], Token::Operand(Operand::Bytes(b"xyA".to_vec())));
        assert_eq!(tokens[10], Token::Operand(Operand::Number(-5.0)));
    }

    #[test]
    fn anything_ends() {
        for source in [
            &b"[[[[[[[[[[[[[[[[[[[["[..],
            b"<<<<<<<<<<",
            b"(((",
            b"<41",
            b"]]>>)",
            b"/",
            b"{}",
            b"<</A>>",
            b"BI ID",
        ] {
            assert!(Tokens::new(source).count() < 100);
        }
        assert!(Tokens::new(&b"[".repeat(100_000)).count() < 10);
        let mut tokens = Tokens::new(b"BI /W 1 ID \x00EIx\xff EI Q");
        assert_eq!(tokens.next(), Some(Token::Operator(b"BI")));
        tokens.skip_image();
        assert_eq!(tokens.next(), Some(Token::Operator(b"Q")));
    }
}
