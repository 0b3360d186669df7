//! Programs of the task types, and the traces that they leave outside of the service: one line for each
//! execution, whatever the service says of it.

use std::path::Path;

use serde::Deserialize;
use tempfile::TempDir;

pub struct Traces(TempDir);

/// One execution, as its program was told.
#[derive(Debug, Deserialize)]
pub struct Execution {
    pub id: String,
    pub attempt: u32,
    pub fencing_token: u64,
    pub idempotency_key: Option<String>,
}

/// The result names the token of its execution and its process, so that no two executions give the same.
/// A service that is killed before it has written the whole task leaves an input without an end.
const PROGRAM: &str = r#"read -r task || exit 75
printf '%s\n' "$task" >> "$0.traces"
case $1 in
slow) sleep 0.7 ;;
flaky) case $task in *'"attempt":1,'*) exit 75 ;; esac ;;
esac
token=${task#*'"fencing_token":'}
echo "{\"token\": ${token%%,*}, \"process\": $$}"
"#;

impl Traces {
    pub fn new() -> Self {
        let traces = Traces(TempDir::new().unwrap());
        std::fs::write(traces.program(), PROGRAM).unwrap();
        traces
    }

    pub fn program(&self) -> std::path::PathBuf {
        self.path().join("program")
    }

    /// Where executions leave their lines.
    pub fn file(&self) -> std::path::PathBuf {
        self.path().join("program.traces")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// `justonce.toml` with all types: short leases, and attempts enough for any number of faults.
    pub fn config(&self) -> String {
        let program = self.program();
        let program = program.display();
        let types = ["record", "slow", "flaky"].map(|name| {
            format!(
                "[task_types.{name}]\nrunner = {{ command = [\"sh\", \"{program}\", \"{name}\"] }}\n\
                 lease_seconds = 1\n\
                 retry = {{ max_attempts = 500, first_delay_seconds = 0.1, max_delay_seconds = 0.5 }}\n"
            )
        });
        format!(
            "{}[task_types.echo]\nlease_seconds = 2\nretry = {{ max_attempts = 500, first_delay_seconds = 0.1 }}\n",
            types.concat()
        )
    }

    /// In the order in which they began.
    pub fn executions(&self) -> Vec<Execution> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}
