use super::failure::{Code, Failure};

/// The most text that is taken out of a document, in bytes.
pub const TEXT_MAX_BYTES: usize = 32 * 1024 * 1024;
/// A title is cut here, in characters.
const TITLE_MAX_CHARS: usize = 200;

/// The text of a document as it grows, in reading order.
#[derive(Debug, Default)]
pub struct Text {
    content: String,
    /// Where each page begins, in bytes; empty for documents without pages.
    pages: Vec<usize>,
}

impl Text {
    pub fn push(&mut self, text: &str) -> Result<(), Failure> {
        if self.content.len() + text.len() > TEXT_MAX_BYTES {
            let message = format!(
                "the document has more than {} MiB of text",
                TEXT_MAX_BYTES >> 20
            );
            return Err(Failure::new(Code::OutputLimit, message));
        }
        // PostgreSQL and others cannot hold it, and it means nothing.
        if text.contains('\0') {
            self.content
                .extend(text.chars().filter(|character| *character != '\0'));
        } else {
            self.content.push_str(text);
        }
        Ok(())
    }

    /// Ends the line, unless nothing stands on it.
    pub fn end_line(&mut self) -> Result<(), Failure> {
        while self.content.ends_with([' ', '\t']) {
            self.content.pop();
        }
        if self.content.is_empty() || self.content.ends_with('\n') {
            Ok(())
        } else {
            self.push("\n")
        }
    }

    /// Ends the paragraph: an empty line, but never two.
    pub fn end_paragraph(&mut self) -> Result<(), Failure> {
        self.end_line()?;
        if self.content.is_empty() || self.content.ends_with("\n\n") {
            Ok(())
        } else {
            self.push("\n")
        }
    }

    /// Begins the next page.
    pub fn start_page(&mut self) -> Result<(), Failure> {
        if !self.pages.is_empty() {
            self.end_paragraph()?;
        }
        self.pages.push(self.content.len());
        Ok(())
    }

    pub fn as_str(&self) -> &str {
        &self.content
    }

    pub fn pages(&self) -> &[usize] {
        &self.pages
    }
}

/// The first line with content, without the marks of a Markdown heading.
pub fn first_line(text: &str) -> Option<String> {
    let line = text
        .lines()
        .map(|line| line.trim().trim_start_matches('#').trim())
        .find(|line| !line.is_empty())?;
    title(line)
}

/// The first Markdown heading: `# Title`, or a line with `===` or `---` under it. Not inside a code block.
pub fn first_heading(text: &str) -> Option<String> {
    let mut fenced = false;
    let mut previous = "";
    for line in text.lines().take(10_000).map(str::trim_end) {
        if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
            fenced = !fenced;
        } else if !fenced {
            let marks = line.bytes().take_while(|byte| *byte == b'#').count();
            if (1..=6).contains(&marks) && line[marks..].starts_with([' ', '\t']) {
                return title(line.trim_matches('#'));
            }
            let underline = line.len() >= 3
                && (line.bytes().all(|byte| byte == b'=') || line.bytes().all(|byte| byte == b'-'));
            if underline && !previous.trim().is_empty() && !previous.starts_with(['-', '=', '|']) {
                return title(previous);
            }
        }
        previous = line;
    }
    None
}

/// A title on one line, cut at 200 characters; `None` when nothing is left.
pub fn title(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let title: String = words
        .join(" ")
        .chars()
        .filter(|character| !character.is_control())
        .take(TITLE_MAX_CHARS)
        .collect();
    (!title.is_empty()).then_some(title)
}
