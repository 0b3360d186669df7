use std::collections::HashSet;

use super::cell::{Cell, Type, Value};

/// Longer names are cut, in characters.
const NAME_MAX_CHARS: usize = 128;

/// Whether `first` names the columns of `rows`, the ones after it.
///
/// It does when all its cells are texts, or empty (at least one is not), and one of these holds:
/// - some column below it is of another type than text;
/// - its names are all there, all different, and none appears again in its own column.
pub fn is_header(first: &[Cell<'_>], rows: &[Vec<Cell<'_>>]) -> bool {
    let texts = first
        .iter()
        .all(|cell| matches!(cell.value, Value::Text | Value::Empty));
    let any = first.iter().any(|cell| cell.value == Value::Text);
    if !texts || !any {
        return false;
    }
    let column = |index: usize| {
        rows.iter()
            .filter_map(move |row| row.get(index))
            .filter(|cell| cell.value != Value::Empty)
    };
    let typed = |index: usize| {
        let mut cells = column(index).peekable();
        cells.peek().is_some() && cells.all(|cell| cell.value.kind() != Type::String)
    };
    let named = |(index, cell): (usize, &Cell<'_>)| {
        cell.value == Value::Text && !column(index).any(|below| below.text == cell.text)
    };
    let mut seen = HashSet::new();
    (0..first.len()).any(typed)
        || (first.iter().enumerate().all(named)
            && first.iter().all(|cell| seen.insert(cell.text.trim())))
}

/// Makes column names: trimmed, cut at 128 characters; an empty one becomes `column_N` (from 1), and one that was taken
/// before gets `_2`, `_3` and so on.
#[derive(Debug, Default)]
pub struct Names {
    taken: HashSet<String>,
    next_suffix: std::collections::HashMap<String, usize>,
    count: usize,
}

impl Names {
    pub fn next(&mut self, wanted: &str) -> String {
        self.count += 1;
        let wanted: String = wanted.trim().chars().take(NAME_MAX_CHARS).collect();
        let base = if wanted.is_empty() {
            format!("column_{}", self.count)
        } else {
            wanted
        };
        let mut name = base.clone();
        while !self.taken.insert(name.clone()) {
            let suffix = self.next_suffix.entry(base.clone()).or_insert(2);
            name = format!("{base}_{suffix}");
            *suffix += 1;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<Cell<'static>> {
        cells
            .iter()
            .map(|cell| Cell::inferred((*cell).to_owned(), false))
            .collect()
    }

    #[test]
    fn a_header_is_told_from_data() {
        let first = |first: &[&str], below: &[&[&str]]| {
            is_header(
                &row(first),
                &below.iter().map(|cells| row(cells)).collect::<Vec<_>>(),
            )
        };
        assert!(first(&["id", "name"], &[&["1", "a"], &["2", "b"]]));
        assert!(first(
            &["city", "land"],
            &[&["Bern", "CH"], &["Wien", "AT"]]
        ));
        assert!(first(&["", "value"], &[&["a", "1"]]));
        assert!(first(&["only", "names"], &[]));
        assert!(!first(&["1", "2"], &[&["3", "4"]]));
        assert!(!first(
            &["Bern", "CH"],
            &[&["Basel", "CH"], &["Wien", "AT"]]
        ));
        assert!(!first(&["", ""], &[&["a", "1"]]));
    }

    #[test]
    fn names_are_unique() {
        let mut names = Names::default();
        let made: Vec<_> = ["a", "a", "", "a_2", "a", " b "]
            .iter()
            .map(|name| names.next(name))
            .collect();
        assert_eq!(made, ["a", "a_2", "column_3", "a_2_2", "a_3", "b"]);
    }
}
