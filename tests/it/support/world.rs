//! The world outside the service: programs that leave traces in a folder, so that executions can be counted
//! whatever the service says of them.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::deadline::until;

pub struct World(TempDir);

impl World {
    pub fn new() -> Self {
        World(TempDir::new().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A `command = …` for `justonce.toml` that runs `script` with `sh`; `$world` is this folder and `$task`
    /// the task as the runner got it, in one line. A service that is killed before it has written the task
    /// leaves the program an empty input: that is no run.
    pub fn command(&self, name: &str, script: &str) -> String {
        let path = self.path().join(format!("{name}.sh"));
        let world = self.path().display();
        let text = format!(
            "world='{world}'\ntask=$(cat | tr -d '\\n')\n[ -n \"$task\" ] || exit 75\n{script}\n"
        );
        std::fs::write(&path, text).unwrap();
        format!("command = [\"sh\", {:?}]", path.to_str().unwrap())
    }

    /// Appends the task to the runs, one line each, and ends with a result.
    pub fn recorder(&self, name: &str) -> String {
        self.command(
            name,
            "printf '%s\\n' \"$task\" >> \"$world/runs\"\necho '{\"ran\": true}'",
        )
    }

    /// Records the run, and ends only once the gate is open.
    pub fn gate(&self, name: &str) -> String {
        let script = "printf '%s\\n' \"$task\" >> \"$world/runs\"\n\
            while [ ! -e \"$world/open\" ]; do sleep 0.02; done\n\
            echo '{\"ran\": true}'";
        self.command(name, script)
    }

    pub fn open_gate(&self) {
        std::fs::write(self.path().join("open"), "").unwrap();
    }

    /// What the programs were given, in the order in which they began.
    pub fn runs(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path().join("runs")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until at least `count` runs have begun.
    pub async fn runs_reach(&self, count: usize) -> Vec<Value> {
        until("a program to run", async || {
            let runs = self.runs();
            (runs.len() >= count).then_some(runs)
        })
        .await
    }
}
