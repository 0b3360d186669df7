//! The task types as they are declared now. The configuration may be read anew while the process runs:
//! whoever needs more than one look at a type keeps what the first one gave.

use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::task_type::{TaskType, TaskTypes};

/// Cheap to clone; all clones show the same types.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(Arc<RwLock<Arc<TaskTypes>>>);

impl Catalogue {
    pub fn new(types: TaskTypes) -> Self {
        Catalogue(Arc::new(RwLock::new(Arc::new(types))))
    }

    pub fn now(&self) -> Arc<TaskTypes> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn get(&self, name: &str) -> Option<Arc<TaskType>> {
        self.now().get(name).cloned()
    }

    /// From now on these are declared, all at once.
    pub fn replace(&self, types: Arc<TaskTypes>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = types;
    }
}
