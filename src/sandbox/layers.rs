use serde::{Deserialize, Serialize};

/// One way in which the child is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Limits on memory, processor time, open files; no core dumps, no writing to files.
    ResourceLimits,
    /// No program that it runs could gain rights.
    NoNewPrivileges,
    /// No file system and no network (Landlock).
    Landlock,
    /// No sockets, programs, processes, or calls into the kernel's less safe parts (seccomp).
    SystemCalls,
}

impl Layer {
    pub fn name(self) -> &'static str {
        match self {
            Layer::ResourceLimits => "resource-limits",
            Layer::NoNewPrivileges => "no-new-privileges",
            Layer::Landlock => "landlock",
            Layer::SystemCalls => "system-calls",
        }
    }
}

/// Which layers this system has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Layers {
    pub active: Vec<Layer>,
    pub missing: Vec<Layer>,
}

impl Layers {
    pub fn note(&mut self, layer: Layer, active: bool) {
        if active {
            self.active.push(layer)
        } else {
            self.missing.push(layer)
        }
    }
}
