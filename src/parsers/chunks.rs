use serde::Serialize;
use sha2::{Digest, Sha256};

use super::failure::{Code, Failure};

/// The largest chunk that may be asked for, in characters.
const SIZE_MAX_CHARS: usize = 1_000_000;
/// The most chunks of a document.
const CHUNKS_MAX: usize = 200_000;

/// How a text is to be cut.
#[derive(Debug, Clone, Copy)]
pub struct Cutting {
    size: usize,
    overlap: usize,
}

/// A piece of the text. `start` and `end` count characters (Unicode scalar values) of the whole text.
#[derive(Debug, Serialize)]
pub struct Chunk<'a> {
    pub index: usize,
    pub text: &'a str,
    /// On which page it begins, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<usize>,
    pub start: usize,
    pub end: usize,
    /// Of the text's UTF-8 bytes, in hexadecimal.
    pub sha256: String,
}

impl Cutting {
    /// `size` is the most that a chunk holds, `overlap` how far it reaches back into the one before, both in characters.
    pub fn new(size: usize, overlap: usize) -> Result<Self, Failure> {
        if size == 0 || size > SIZE_MAX_CHARS {
            return Err(Failure::params(format!(
                "chunk_size_chars must be between 1 and {SIZE_MAX_CHARS}"
            )));
        }
        if overlap > size / 2 {
            return Err(Failure::params(
                "overlap_chars must be at most half of chunk_size_chars",
            ));
        }
        Ok(Self { size, overlap })
    }

    /// Cuts a text; `pages` are the bytes at which its pages begin.
    ///
    /// A chunk ends with a paragraph if that leaves it at least half full, else with a line or a sentence, else with a
    /// word, and within a word only when the word is longer than the chunk. White space around chunks is left out. Each
    /// character is looked at a bounded number of times.
    pub fn cut<'a>(self, text: &'a str, pages: &[usize]) -> Result<Vec<Chunk<'a>>, Failure> {
        let mut chunks: Vec<Chunk<'a>> = Vec::new();
        let mut page = 0;
        let mut at = Position::default().skip_space(text);
        while at.byte < text.len() {
            if chunks.len() == CHUNKS_MAX {
                let message =
                    format!("the document makes more than {CHUNKS_MAX} chunks of this size");
                return Err(Failure::new(Code::OutputLimit, message));
            }
            let limit = at.forward(text, self.size);
            let end = if limit.byte == text.len() {
                limit
            } else {
                self.border(text, at, limit)
            };
            let piece = text[at.byte..end.byte].trim_end();
            while pages.get(page).is_some_and(|start| *start <= at.byte) {
                page += 1;
            }
            chunks.push(Chunk {
                index: chunks.len(),
                text: piece,
                page: (page > 0).then_some(page),
                start: at.char,
                end: at.char + piece.chars().count(),
                sha256: hex(&Sha256::digest(piece)),
            });
            if end.byte == text.len() {
                break;
            }
            at = self.next_start(text, at, end);
        }
        Ok(chunks)
    }

    /// Where the chunk from `start` ends, at most at `limit`, which is not the end of the text.
    fn border(self, text: &str, start: Position, limit: Position) -> Position {
        // Below this a chunk would not get beyond its overlap by a good part of its size.
        let least = self.overlap + (self.size - self.overlap).div_ceil(4);
        let half = least.max(self.size / 2);
        let mut best: Option<(u8, Position)> = None;
        let mut at = start.forward(text, least);
        let mut before = text[..at.byte].chars().next_back();
        for character in text[at.byte..limit.byte]
            .chars()
            .chain(text[limit.byte..].chars().next())
        {
            let rank = rank(before, character, &text[at.byte..]);
            let counts = rank == 1 || (rank > 1 && at.char >= start.char + half);
            if counts && best.is_none_or(|(best, _)| rank >= best) {
                best = Some((rank, at));
            }
            if at.byte < limit.byte {
                at.byte += character.len_utf8();
                at.char += 1;
            }
            before = Some(character);
        }
        best.map_or(limit, |(_, at)| at)
    }

    /// Where the chunk after the one that ended at `end` starts: `overlap` characters earlier, then forward to the next
    /// word.
    fn next_start(self, text: &str, start: Position, end: Position) -> Position {
        if self.overlap == 0 {
            return end.skip_space(text);
        }
        let length = end.char - start.char;
        let back = start.forward(text, length.saturating_sub(self.overlap));
        let mut at = back;
        let mut before = text[..back.byte].chars().next_back();
        for character in text[back.byte..end.byte].chars() {
            if !character.is_whitespace() && before.is_none_or(char::is_whitespace) {
                return at;
            }
            at.byte += character.len_utf8();
            at.char += 1;
            before = Some(character);
        }
        // One long word: nothing better than to cut it.
        back.skip_space(text)
    }
}

/// How good it is to cut between two characters: 4 paragraph, 3 line, 2 sentence, 1 word, 0 not at all. Borders count
/// where white space begins, except that text without spaces (Chinese, Japanese) may be cut after a full stop.
fn rank(before: Option<char>, after: char, rest: &str) -> u8 {
    match (before, after) {
        (Some(before), _) if before.is_whitespace() => 0,
        (_, '\n') if rest.starts_with("\n\n") => 4,
        (Some('.' | '!' | '?' | ':' | '…' | '"' | '”'), '\n') => 3,
        (Some('.' | '!' | '?' | '…'), after) if after.is_whitespace() => 2,
        (Some('。' | '！' | '？'), _) => 2,
        (_, after) if after.is_whitespace() => 1,
        _ => 0,
    }
}

/// A place in a text, in bytes and in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Position {
    byte: usize,
    char: usize,
}

impl Position {
    /// At most `count` characters further.
    fn forward(self, text: &str, count: usize) -> Self {
        let mut at = self;
        for character in text[self.byte..].chars().take(count) {
            at.byte += character.len_utf8();
            at.char += 1;
        }
        at
    }

    fn skip_space(self, text: &str) -> Self {
        let space = text[self.byte..]
            .chars()
            .take_while(|character| character.is_whitespace())
            .count();
        self.forward(text, space)
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, size: usize, overlap: usize) -> Vec<String> {
        let chunks = Cutting::new(size, overlap)
            .expect("sizes")
            .cut(text, &[])
            .expect("few chunks");
        let characters: Vec<char> = text.chars().collect();
        for chunk in &chunks {
            assert_eq!(
                chunk.text,
                characters[chunk.start..chunk.end]
                    .iter()
                    .collect::<String>()
            );
            assert!(chunk.end - chunk.start <= size);
        }
        chunks.iter().map(|chunk| chunk.text.to_owned()).collect()
    }

    #[test]
    fn chunks_end_at_the_best_border() {
        assert_eq!(
            check("One two.\n\nThree four five", 15, 0),
            ["One two.", "Three four five"]
        );
        assert_eq!(
            check("A first sentence. And then more", 24, 0),
            ["A first sentence.", "And then more"]
        );
        assert_eq!(check("alpha beta gamma", 12, 0), ["alpha beta", "gamma"]);
        assert_eq!(check("abcdefghij", 4, 0), ["abcd", "efgh", "ij"]);
        assert_eq!(check("äöü ßß", 3, 0), ["äöü", "ßß"]);
        assert!(check("  \n ", 5, 0).is_empty());
    }

    #[test]
    fn chunks_overlap_by_words() {
        let chunks = check("one two three four five six seven eight", 16, 6);
        assert_eq!(chunks[0], "one two three");
        assert!(chunks[1].starts_with("three"));
        check(&"x".repeat(100), 10, 5);
    }

    #[test]
    fn every_word_is_kept_and_time_is_linear() {
        let text = "word ".repeat(400_000) + &"x".repeat(2_000_000);
        let started = std::time::Instant::now();
        let chunks = check(&text, 1000, 500);
        assert!(chunks.len() > 4_000);
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    }
}
