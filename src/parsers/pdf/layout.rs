use super::super::failure::Failure;
use super::super::text::Text;

/// A gap this wide separates words, of the font's size (the same as poppler's).
const WORD_GAP: f64 = 0.1;
/// A baseline that is off by more than this is another line; a superscript's is off by less. Of the font's size.
const LINE_SHIFT: f64 = 0.5;
/// A baseline that is off by more than this begins another paragraph, of the font's size.
const PARAGRAPH_SHIFT: f64 = 1.75;

/// Where a glyph stands on the page.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub x: f64,
    pub y: f64,
    /// The way that it takes up along its line.
    pub advance: (f64, f64),
    /// Height of the font on the page.
    pub size: f64,
}

/// Puts glyphs together to words, lines and paragraphs by where they stand, in the order in which they are drawn.
pub struct Layout<'a> {
    text: &'a mut Text,
    line: String,
    last: Option<Last>,
}

/// The glyph before.
#[derive(Clone, Copy)]
struct Last {
    start: (f64, f64),
    end: (f64, f64),
    /// Unit vector along the line.
    along: (f64, f64),
    size: f64,
}

enum Step {
    Same,
    Word,
    Line,
    Paragraph,
}

impl<'a> Layout<'a> {
    pub fn new(text: &'a mut Text) -> Self {
        Self {
            text,
            line: String::new(),
            last: None,
        }
    }

    pub fn add(&mut self, glyph: &str, place: Place) -> Result<(), Failure> {
        if !(place.x.is_finite() && place.y.is_finite() && place.size.is_finite()) {
            return Ok(());
        }
        let length = place.advance.0.hypot(place.advance.1);
        let along = match self.last {
            _ if length > 1e-6 => (place.advance.0 / length, place.advance.1 / length),
            Some(last) => last.along,
            None => (1.0, 0.0),
        };
        if glyph.is_empty() {
            // It reads as nothing, and leaves a gap.
            return Ok(());
        }
        let is_blank = glyph.trim().is_empty();
        if is_blank {
            self.word();
        } else {
            match self.last.map_or(Step::Same, |last| last.step(place, along)) {
                Step::Same => {}
                Step::Word => self.word(),
                Step::Line => self.end_line(glyph)?,
                Step::Paragraph => {
                    self.end_line("")?;
                    self.text.end_paragraph()?;
                }
            }
            push_plain(&mut self.line, glyph);
        }
        let end = (place.x + place.advance.0, place.y + place.advance.1);
        self.last = match self.last {
            // Spaces at the start of a line do not make it one.
            Some(last)
                if is_blank && !matches!(last.step(place, along), Step::Same | Step::Word) =>
            {
                Some(last)
            }
            _ => Some(Last {
                start: (place.x, place.y),
                end,
                along,
                size: place.size.max(0.1),
            }),
        };
        Ok(())
    }

    /// Passes over a glyph that another text stands for.
    pub fn pass(&mut self, place: Place) {
        if let Some(last) = &mut self.last {
            last.end = (place.x + place.advance.0, place.y + place.advance.1);
        }
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.end_line("")?;
        self.text.end_paragraph()
    }

    fn word(&mut self) {
        if !self.line.is_empty() && !self.line.ends_with(' ') {
            self.line.push(' ');
        }
    }

    /// Ends the line. A word that was broken at its end is put together again when `next` goes on in lower case.
    fn end_line(&mut self, next: &str) -> Result<(), Failure> {
        let line = self.line.trim_end();
        let broken = line
            .strip_suffix(['-', '\u{2010}', '\u{ad}'])
            .filter(|stem| {
                stem.ends_with(char::is_alphabetic) && next.starts_with(char::is_lowercase)
            });
        match broken {
            Some(stem) => self.text.push(stem)?,
            None if !line.is_empty() => {
                self.text.push(line)?;
                self.text.end_line()?;
            }
            None => {}
        }
        self.line.clear();
        Ok(())
    }
}

impl Last {
    fn step(&self, place: Place, along: (f64, f64)) -> Step {
        if self.along.0 * along.0 + self.along.1 * along.1 < 0.9 {
            return Step::Line;
        }
        let (dx, dy) = (place.x - self.end.0, place.y - self.end.1);
        let gap = dx * self.along.0 + dy * self.along.1;
        let shift = (dy * self.along.0 - dx * self.along.1).abs();
        let size = self.size.max(place.size);
        if shift > PARAGRAPH_SHIFT * size {
            return Step::Paragraph;
        }
        if shift > LINE_SHIFT * size {
            return Step::Line;
        }
        // Back beyond the glyph before: text that is drawn in another order, such as the cell to the left.
        let back =
            (place.x - self.start.0) * self.along.0 + (place.y - self.start.1) * self.along.1;
        if back < -0.5 * size {
            return Step::Line;
        }
        if gap > WORD_GAP * size.min(self.size * 1.5) {
            Step::Word
        } else {
            Step::Same
        }
    }
}

/// Ligatures are taken apart, so that their words can be found.
fn push_plain(line: &mut String, glyph: &str) {
    for character in glyph.chars() {
        match character {
            '\u{fb00}' => line.push_str("ff"),
            '\u{fb01}' => line.push_str("fi"),
            '\u{fb02}' => line.push_str("fl"),
            '\u{fb03}' => line.push_str("ffi"),
            '\u{fb04}' => line.push_str("ffl"),
            '\u{fb05}' | '\u{fb06}' => line.push_str("st"),
            '\u{a0}' | '\t' | '\r' | '\n' => line.push(' '),
            character if character.is_control() => {}
            character => line.push(character),
        }
    }
}
