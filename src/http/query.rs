//! Query parameters, read strictly: none is ignored in silence.

use std::collections::BTreeMap;

use url::form_urlencoded;

use super::problem::Problem;
use crate::domain::schema::Violation;

/// The parameters of one request that its route knows. Problems point at one as `query:name`.
#[derive(Debug, Default)]
pub struct Query {
    values: BTreeMap<String, String>,
    violations: Vec<Violation>,
}

impl Query {
    pub fn read(query: Option<&str>, known: &[&str]) -> Self {
        let mut read = Query::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let shown: String = name.chars().take(64).collect();
                read.refuse(&shown, "is not a parameter here");
            } else if read
                .values
                .insert(name.to_string(), value.into_owned())
                .is_some()
            {
                read.refuse(&name, "occurs twice");
            }
        }
        read
    }

    /// The value of a parameter as `parse` reads it; when it cannot, that is remembered.
    pub fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.values.remove(name)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.refuse(name, expected);
        }
        parsed
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// The values that were not asked for yet.
    pub fn rest(&mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.values)
    }

    pub fn refuse(&mut self, name: &str, detail: &str) {
        self.violations.push(Violation {
            pointer: format!("query:{name}"),
            detail: detail.to_owned(),
        });
    }

    /// All that is wrong, at once.
    pub fn check(&mut self) -> Result<(), Problem> {
        match std::mem::take(&mut self.violations) {
            none if none.is_empty() => Ok(()),
            violations => Err(Problem::violations(violations)),
        }
    }
}

/// A route without parameters.
pub fn expect_none(query: Option<&str>) -> Result<(), Problem> {
    Query::read(query, &[]).check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        let check = |query: &str| Query::read(Some(query), &["a", "b"]).check();
        assert!(check("").is_ok());
        assert!(check("a=1&b=%20").is_ok());
        assert!(check("a=1&a=2").is_err());
        assert!(check("c=1").is_err());
        assert!(expect_none(None).is_ok());
    }

    #[test]
    fn values_are_parsed_or_pointed_at() {
        let mut query = Query::read(Some("a=7&b=x+y"), &["a", "b"]);
        assert_eq!(query.parsed("a", "", |v| v.parse().ok()), Some(7));
        let number = query.parsed("b", "must be a number", |v| v.parse::<u8>().ok());
        assert_eq!(number, None);
        assert!(query.check().is_err());
    }
}
