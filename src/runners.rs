//! The adapters of the runner port.

pub mod command;
pub mod echo;
pub mod sandboxed;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::task_type::{RunnerSpec, TaskTypes};
use crate::limits::Limits;
use crate::runner::Runner;
use crate::sandbox::{Kind, Sandbox};
use command::CommandRunner;
use command::launcher::Launcher;
use echo::Echo;
use sandboxed::SandboxedRunner;

/// What runs each task type, by its name.
pub type Runners = HashMap<String, Arc<dyn Runner>>;

/// What runners need from the process that they live in.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the operator's programs run.
    pub folder: PathBuf,
    pub launcher: Launcher,
    pub sandbox: Sandbox,
    pub limits: Limits,
}

/// A runner for each type that this process can run; it leaves the tasks of other types alone.
pub fn for_types(types: &TaskTypes, surroundings: &Surroundings) -> Runners {
    let runner = |spec: &RunnerSpec| -> Option<Arc<dyn Runner>> {
        match spec {
            RunnerSpec::Builtin(name) if name == "echo" => Some(Arc::new(Echo)),
            RunnerSpec::Builtin(_) | RunnerSpec::External => None,
            RunnerSpec::Sandboxed(name) => {
                let kind = Kind::from_name(name)?;
                Some(Arc::new(SandboxedRunner::new(
                    kind,
                    surroundings.sandbox.clone(),
                )))
            }
            RunnerSpec::Command(words) => {
                Some(Arc::new(CommandRunner::new(words.clone(), surroundings)))
            }
        }
    };
    let named = types
        .iter()
        .map(|made| Some((made.name.clone(), runner(&made.runner)?)));
    named.flatten().collect()
}
