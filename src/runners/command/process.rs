//! A program that runs, with everything that it has started.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// The leader of a process group of its own. When it ends, or is to end, what it has left in the
/// group is killed; dropping it stops the group too.
#[derive(Debug)]
pub struct Process {
    /// Gone once it has been waited for.
    running: Option<Running>,
    status: Option<ExitStatus>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    group: Pid,
}

/// Between SIGTERM and SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long output is read after the program has ended.
pub const LINGER: Duration = Duration::from_secs(1);

impl Process {
    /// Starts it on the calling thread, which must live as long as the service: the program ends
    /// with the thread that has started it. Threads of the runtime do.
    pub fn spawn(mut command: Command) -> io::Result<Process> {
        let child = command.process_group(0).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = id
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("a child without an id"))?;
        Ok(Process {
            running: Some(Running { child, group }),
            status: None,
        })
    }

    pub fn pipes(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        match &mut self.running {
            Some(Running { child, .. }) => {
                (child.stdin.take(), child.stdout.take(), child.stderr.take())
            }
            None => (None, None, None),
        }
    }

    /// The exit status, once the program has ended and the rest of its group was killed.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(running) = &mut self.running {
            let status = running.child.wait().await?;
            running.signal(Signal::KILL);
            self.running = None;
            self.status = Some(status);
        }
        self.status
            .ok_or_else(|| io::Error::other("the program's end was not seen"))
    }

    /// Ends the group, kindly at first. Nothing to do when the program has ended.
    pub async fn stop(&mut self) {
        if let Some(running) = &mut self.running {
            running.stop().await;
            self.running = None;
        }
    }
}

impl Running {
    async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(STOP_GRACE, self.child.wait()).await;
        self.signal(Signal::KILL);
        if ended.is_err() {
            let _ = self.child.wait().await;
        }
    }

    /// The group may be gone already, which is what is wanted.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { running.stop().await })),
            Err(_) => running.signal(Signal::KILL),
        }
    }
}
