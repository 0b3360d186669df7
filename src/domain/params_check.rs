//! What a task type demands of its params beyond their JSON Schema.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::schema::Violation;

/// Cheap to clone.
#[derive(Clone)]
pub struct ParamsCheck(Arc<Check>);

type Check = dyn Fn(&Value) -> Vec<Violation> + Send + Sync;

impl ParamsCheck {
    /// `check` gives what is wrong, with pointers below `/params`. Members may be missing, or of any type.
    pub fn new(check: impl Fn(&Value) -> Vec<Violation> + Send + Sync + 'static) -> Self {
        ParamsCheck(Arc::new(check))
    }

    pub fn violations(&self, params: &Value) -> Vec<Violation> {
        (self.0)(params)
    }
}

impl fmt::Debug for ParamsCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParamsCheck")
    }
}
