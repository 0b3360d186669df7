use std::rc::Rc;

use lopdf::{Dictionary, Object, Stream};

use super::font::Font;
use super::layout::{Layout, Place};
use super::matrix::Matrix;
use super::page::Reading;
use super::tokens::{Operand, Token, Tokens};
use super::{Failure, Text};

/// The deepest nesting of forms.
const FORMS_MAX: usize = 12;
/// The deepest nesting of saved states.
const STATES_MAX: usize = 512;
/// Operands before the last of these are dropped.
const OPERANDS_MAX: usize = 64;

/// What `q` saves, as far as text goes.
#[derive(Clone)]
struct State {
    transform: Matrix,
    font: Option<Rc<Font>>,
    size: f64,
    char_space: f64,
    word_space: f64,
    stretch: f64,
    leading: f64,
    rise: f64,
}

/// Where the next text goes.
struct Cursor {
    text: Matrix,
    line: Matrix,
}

/// Marked content that is read as another text than its glyphs (`ActualText`).
struct Replacement {
    /// How deep in marked content it is, from 1.
    depth: usize,
    /// Waits for the first glyph, which says where it stands.
    text: Option<String>,
}

/// Runs content streams and hands their text to the layout.
pub struct Drawing<'r, 'd, 't> {
    reading: &'r mut Reading<'d>,
    layout: Layout<'t>,
    /// The forms that are being drawn: none draws itself again.
    forms: Vec<&'d Stream>,
    /// Depth of marked content.
    marks: usize,
    replacement: Option<Replacement>,
}

impl<'r, 'd, 't> Drawing<'r, 'd, 't> {
    pub fn new(reading: &'r mut Reading<'d>, text: &'t mut Text) -> Self {
        Self {
            reading,
            layout: Layout::new(text),
            forms: Vec::new(),
            marks: 0,
            replacement: None,
        }
    }

    pub fn finish(self) -> Result<(), Failure> {
        self.layout.finish()
    }

    pub fn run(
        &mut self,
        content: &[u8],
        resources: &[&'d Dictionary],
        transform: Matrix,
    ) -> Result<(), Failure> {
        let mut state = State {
            transform,
            font: None,
            size: 0.0,
            char_space: 0.0,
            word_space: 0.0,
            stretch: 1.0,
            leading: 0.0,
            rise: 0.0,
        };
        let mut cursor = Cursor {
            text: Matrix::IDENTITY,
            line: Matrix::IDENTITY,
        };
        let mut saved: Vec<State> = Vec::new();
        let mut operands: Vec<Operand> = Vec::new();
        let mut tokens = Tokens::new(content);
        while let Some(token) = tokens.next() {
            let operator = match token {
                Token::Operand(operand) => {
                    if operands.len() >= OPERANDS_MAX {
                        operands.remove(0);
                    }
                    operands.push(operand);
                    continue;
                }
                Token::Operator(operator) => operator,
            };
            match operator {
                b"q" if saved.len() < STATES_MAX => saved.push(state.clone()),
                b"Q" => state = saved.pop().unwrap_or(state),
                b"cm" => {
                    if let Some(matrix) = matrix(&operands) {
                        state.transform = matrix.then(state.transform);
                    }
                }
                b"BI" => tokens.skip_image(),
                b"Tf" => {
                    if let [.., name, size] = operands.as_slice() {
                        state.font = name
                            .name()
                            .and_then(|name| self.reading.font(resources, name));
                        state.size = size.number().unwrap_or(state.size);
                    }
                }
                b"Do" => {
                    if let Some(name) = operands.last().and_then(Operand::name) {
                        self.draw(name, resources, state.transform)?;
                    }
                }
                b"BDC" => self.begin_mark(&operands, resources),
                b"BMC" => self.marks += 1,
                b"EMC" => {
                    self.leave_marks(self.marks.saturating_sub(1));
                }
                _ => self.text_operator(operator, &operands, &mut state, &mut cursor)?,
            }
            operands.clear();
        }
        Ok(())
    }

    fn text_operator(
        &mut self,
        operator: &[u8],
        operands: &[Operand],
        state: &mut State,
        cursor: &mut Cursor,
    ) -> Result<(), Failure> {
        let last = operands.last().and_then(Operand::number);
        match operator {
            b"BT" => {
                *cursor = Cursor {
                    text: Matrix::IDENTITY,
                    line: Matrix::IDENTITY,
                }
            }
            b"Tc" => state.char_space = last.unwrap_or(0.0),
            b"Tw" => state.word_space = last.unwrap_or(0.0),
            b"Tz" => state.stretch = last.unwrap_or(100.0) / 100.0,
            b"TL" => state.leading = last.unwrap_or(0.0),
            b"Ts" => state.rise = last.unwrap_or(0.0),
            b"Td" | b"TD" => {
                if let [.., Operand::Number(x), Operand::Number(y)] = operands {
                    if operator == b"TD" {
                        state.leading = -y;
                    }
                    cursor.go(*x, *y);
                }
            }
            b"Tm" => {
                if let Some(matrix) = matrix(operands) {
                    *cursor = Cursor {
                        text: matrix,
                        line: matrix,
                    };
                }
            }
            b"T*" => cursor.go(0.0, -state.leading),
            b"Tj" => self.show_last(operands, state, cursor)?,
            b"'" => {
                cursor.go(0.0, -state.leading);
                self.show_last(operands, state, cursor)?;
            }
            b"\"" => {
                if let [.., Operand::Number(word), Operand::Number(char), _] = operands {
                    (state.word_space, state.char_space) = (*word, *char);
                }
                cursor.go(0.0, -state.leading);
                self.show_last(operands, state, cursor)?;
            }
            b"TJ" => {
                let Some(Operand::Array(parts)) = operands.last() else {
                    return Ok(());
                };
                for part in parts {
                    match part {
                        Operand::Bytes(bytes) => self.show(bytes, state, cursor)?,
                        Operand::Number(back) => {
                            cursor.advance(-back / 1000.0 * state.size * state.stretch)
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn show_last(
        &mut self,
        operands: &[Operand],
        state: &State,
        cursor: &mut Cursor,
    ) -> Result<(), Failure> {
        match operands.last().and_then(Operand::bytes) {
            Some(bytes) => self.show(bytes, state, cursor),
            None => Ok(()),
        }
    }

    fn show(&mut self, bytes: &[u8], state: &State, cursor: &mut Cursor) -> Result<(), Failure> {
        let Some(font) = &state.font else {
            return Ok(());
        };
        let mut outcome = Ok(());
        font.glyphs(bytes, |glyph| {
            let rendering = cursor.text.then(state.transform);
            let (x, y) = rendering.apply(0.0, state.rise);
            let advance = rendering.apply_distance(glyph.width * state.size * state.stretch, 0.0);
            let height = rendering.apply_distance(0.0, state.size * font.height);
            let place = Place {
                x,
                y,
                advance,
                size: height.0.hypot(height.1),
            };
            if outcome.is_ok() {
                outcome = match &mut self.replacement {
                    None => self.layout.add(&glyph.text, place),
                    Some(replacement) => match replacement.text.take() {
                        Some(text) => self.layout.add(&text, place),
                        None => {
                            self.layout.pass(place);
                            Ok(())
                        }
                    },
                };
            }
            let word = if glyph.is_space_byte {
                state.word_space
            } else {
                0.0
            };
            cursor.advance((glyph.width * state.size + state.char_space + word) * state.stretch);
        });
        outcome
    }

    /// Draws a form: a page within the page.
    fn draw(
        &mut self,
        name: &[u8],
        resources: &[&'d Dictionary],
        transform: Matrix,
    ) -> Result<(), Failure> {
        let Some((_, Object::Stream(form))) = self.reading.resource(resources, b"XObject", name)
        else {
            return Ok(());
        };
        let is_form = form
            .dict
            .get(b"Subtype")
            .and_then(Object::as_name)
            .is_ok_and(|subtype| subtype == b"Form");
        if is_form {
            self.draw_form(form, resources, transform)
        } else {
            Ok(())
        }
    }

    pub fn draw_form(
        &mut self,
        form: &'d Stream,
        resources: &[&'d Dictionary],
        transform: Matrix,
    ) -> Result<(), Failure> {
        let again = self.forms.iter().any(|open| std::ptr::eq(*open, form));
        if again || self.forms.len() >= FORMS_MAX {
            return Ok(());
        }
        let own = match self.reading.object(&form.dict, b"Matrix") {
            Some(Object::Array(numbers)) => {
                let numbers: Vec<Operand> = numbers
                    .iter()
                    .filter_map(|number| number.as_float().ok())
                    .map(|number| Operand::Number(number.into()))
                    .collect();
                matrix(&numbers).unwrap_or(Matrix::IDENTITY)
            }
            _ => Matrix::IDENTITY,
        };
        let content = self.reading.form_content(form)?;
        let mut nested = resources.to_vec();
        nested.extend(self.reading.dictionary(&form.dict, b"Resources"));
        self.forms.push(form);
        let marks = self.marks;
        let outcome = self.run(&content, &nested, own.then(transform));
        self.leave_marks(marks);
        self.forms.pop();
        outcome
    }

    fn begin_mark(&mut self, operands: &[Operand], resources: &[&'d Dictionary]) {
        let actual = match operands.last() {
            Some(Operand::Dictionary(entries)) => entries
                .iter()
                .find(|(name, _)| name == b"ActualText")
                .and_then(|(_, text)| text.bytes())
                .map(<[u8]>::to_vec),
            Some(Operand::Name(name)) => self
                .reading
                .resource(resources, b"Properties", name)
                .and_then(|(_, properties)| {
                    properties
                        .as_dict()
                        .ok()?
                        .get(b"ActualText")
                        .ok()?
                        .as_str()
                        .ok()
                })
                .map(<[u8]>::to_vec),
            _ => None,
        };
        self.marks += 1;
        if let Some(bytes) = actual
            && self.replacement.is_none()
        {
            let string = Object::String(bytes, lopdf::StringFormat::Literal);
            let text = lopdf::decode_text_string(&string).ok();
            self.replacement = Some(Replacement {
                depth: self.marks,
                text,
            });
        }
    }

    fn leave_marks(&mut self, depth: usize) {
        self.marks = depth;
        self.replacement
            .take_if(|replacement| replacement.depth > depth);
    }
}

impl Cursor {
    /// To the start of another line.
    fn go(&mut self, x: f64, y: f64) {
        self.line = Matrix::translation(x, y).then(self.line);
        self.text = self.line;
    }

    fn advance(&mut self, x: f64) {
        self.text = Matrix::translation(x, 0.0).then(self.text);
    }
}

fn matrix(operands: &[Operand]) -> Option<Matrix> {
    let start = operands.len().checked_sub(6)?;
    let mut numbers = [0.0; 6];
    for (number, operand) in numbers.iter_mut().zip(&operands[start..]) {
        *number = operand.number()?;
    }
    Some(Matrix(numbers))
}
