//! Members of a JSON object, taken one by one; whatever is wrong is collected.

use serde_json::{Map, Value};

use crate::domain::json;
use crate::domain::schema::Violation;

/// The members of the object at `pointer` that were not taken yet.
#[derive(Debug)]
pub struct Members {
    pointer: String,
    values: Map<String, Value>,
    violations: Vec<Violation>,
}

impl Members {
    /// Problems reported at most; a client that is further off has other worries.
    const VIOLATIONS_MAX: usize = 50;

    pub fn new(pointer: &str, values: Map<String, Value>) -> Self {
        Members {
            pointer: pointer.to_owned(),
            values,
            violations: Vec::new(),
        }
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// A member that is not taken yet.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The member as `read` understands it; what it does not is refused as not being `expected`.
    pub fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(name)?;
        let read = read(value);
        if read.is_none() {
            self.refuse(name, expected);
        }
        read
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, "must be a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    pub fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        self.read(name, "must be an object", |value| match value {
            Value::Object(members) => Some(members),
            _ => None,
        })
    }

    pub fn refuse(&mut self, name: &str, detail: &str) {
        self.violations.push(Violation {
            pointer: json::pointer(&self.pointer, name),
            detail: detail.to_owned(),
        });
    }

    pub fn refuse_all(&mut self, violations: Vec<Violation>) {
        self.violations.extend(violations);
    }

    /// What is wrong; members that were not taken are, too. Those among `planned` are named as what
    /// they are: known, and not built yet.
    pub fn violations(mut self, planned: &[&str]) -> Vec<Violation> {
        let names: Vec<String> = self.values.keys().cloned().collect();
        for name in names.iter().take(Self::VIOLATIONS_MAX) {
            match planned.contains(&name.as_str()) {
                true => self.refuse(name, "is not supported yet"),
                false => self.refuse(name, "is not a known member"),
            }
        }
        self.violations.truncate(Self::VIOLATIONS_MAX);
        self.violations
    }
}
