//! JSON Schemas for params.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// A compiled JSON Schema. References to other documents are not followed.
#[derive(Clone)]
pub struct ParamsSchema {
    document: Arc<Value>,
    validator: Arc<jsonschema::Validator>,
}

/// One way in which a value is wrong; both texts are for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer to the value.
    pub pointer: String,
    pub detail: String,
}

impl ParamsSchema {
    /// Violations reported for one value at most.
    pub const VIOLATIONS_MAX: usize = 20;

    pub fn compile(document: Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(&document).map_err(|error| error.to_string())?;
        Ok(ParamsSchema {
            document: Arc::new(document),
            validator: Arc::new(validator),
        })
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    /// What is wrong with `value`, with pointers below `at`.
    pub fn violations(&self, value: &Value, at: &str) -> Vec<Violation> {
        let violation = |error: jsonschema::ValidationError<'_>| Violation {
            pointer: format!("{at}{}", error.instance_path()),
            detail: error.masked().to_string(),
        };
        self.validator
            .iter_errors(value)
            .take(Self::VIOLATIONS_MAX)
            .map(violation)
            .collect()
    }
}

impl fmt::Debug for ParamsSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.document, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn violations_point_at_the_value() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": false});
        let schema = ParamsSchema::compile(schema).unwrap();
        assert!(schema.violations(&json!({"n": 1}), "/params").is_empty());
        let violations = schema.violations(&json!({"n": "secret"}), "/params");
        assert_eq!(violations[0].pointer, "/params/n");
        assert!(
            !violations[0].detail.contains("secret"),
            "{}",
            violations[0].detail
        );
        assert!(ParamsSchema::compile(json!({"type": "nonsense"})).is_err());
    }
}
