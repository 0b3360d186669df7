//! Starts a program so that it ends with the service, even if the service is killed.
//!
//! Only code between fork and exec could ask the system for that in the program's place, and that
//! is no place for safe code. So the service starts itself as `justonce launch`, which asks for it and then becomes the program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::process::Command;

/// Exit status of a program that is there and cannot be started, as shells have it.
pub const EXIT_NOT_STARTED: i32 = 126;
/// Exit status for a program that is not there, as shells have it.
pub const EXIT_NOT_FOUND: i32 = 127;

#[derive(Clone, Debug)]
pub enum Launcher {
    /// Through this binary of ours.
    Ourselves(PathBuf),
    /// As they are: they outlive a service that is killed.
    Direct,
}

impl Launcher {
    /// The binary that runs now, also after its file was replaced by a newer one.
    pub fn this_binary() -> std::io::Result<Self> {
        let running = PathBuf::from("/proc/self/exe");
        match running.exists() {
            true => Ok(Launcher::Ourselves(running)),
            false => std::env::current_exe().map(Launcher::Ourselves),
        }
    }

    /// The command that runs `words`: a program and its arguments.
    pub fn command(&self, words: &[String]) -> Command {
        match self {
            Launcher::Ourselves(binary) => {
                let mut command = Command::new(binary);
                let service = std::process::id().to_string();
                command.args(["launch", &service, "--"]).args(words);
                command
            }
            Launcher::Direct => {
                let mut words = words.iter();
                let mut command = Command::new(words.next().map_or("", String::as_str));
                command.args(words);
                command
            }
        }
    }
}

/// `justonce launch SERVICE -- PROGRAM …`: becomes the program. Returns only if that fails.
pub fn launch(service: &str, program: &OsString, arguments: &[OsString]) -> ExitCode {
    if let Err(error) = end_with(service) {
        eprintln!("justonce launch: {error}");
        return exit(EXIT_NOT_STARTED);
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!("justonce launch: {}: {error}", program.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => exit(EXIT_NOT_FOUND),
        _ => exit(EXIT_NOT_STARTED),
    }
}

/// The system kills this process when its parent ends. The parent may have ended before: then another
/// process has taken its place.
fn end_with(service: &str) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    let parent = getppid().map(Pid::as_raw_pid);
    match parent.is_some_and(|parent| parent.to_string() == service) {
        true => Ok(()),
        false => Err("the service has ended".to_owned()),
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
