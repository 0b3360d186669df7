//! A process that is killed, paused and started again, as often as the nemesis likes.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit,
};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::deadline::within;

/// Before a process that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Kept running as long as it is wanted, as a container's restart policy would.
pub struct Process {
    pub name: String,
    wanted: watch::Sender<bool>,
    shared: Arc<Shared>,
    supervisor: JoinHandle<()>,
}

struct Shared {
    /// A handle that can never name another process.
    running: watch::Sender<Option<(Pid, Arc<OwnedFd>)>>,
    /// How it ended when nobody had asked for that, and the last that it wrote.
    unasked: Mutex<Vec<String>>,
    log: PathBuf,
}

impl Process {
    /// Starts what `make` makes, anew each time. What it writes goes to the log.
    pub fn start(
        name: String,
        log: PathBuf,
        make: impl Fn() -> Command + Send + 'static,
    ) -> Process {
        let (wanted, wants) = watch::channel(true);
        let shared = Arc::new(Shared {
            running: watch::Sender::new(None),
            unasked: Mutex::default(),
            log,
        });
        let supervisor = tokio::spawn(supervise(make, wants, shared.clone()));
        Process {
            name,
            wanted,
            shared,
            supervisor,
        }
    }

    /// SIGKILL; it stays down until it is brought up again.
    pub async fn kill(&self) {
        self.end(Signal::KILL).await;
    }

    /// SIGTERM; waits for its end.
    pub async fn terminate(&self) {
        self.end(Signal::TERM).await;
    }

    async fn end(&self, signal: Signal) {
        self.wanted.send_replace(false);
        self.signal(signal);
        let mut running = self.shared.running.subscribe();
        let gone = running.wait_for(Option::is_none);
        let _ = within(&format!("the end of {}", self.name), gone).await;
    }

    pub fn bring_up(&self) {
        self.wanted.send_replace(true);
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// How many files it may have open from now on, until it is started anew.
    pub fn limit_files(&self, most: u64) {
        // Raising the upper limit again would need rights.
        let limit = Rlimit {
            current: Some(most),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        let running = self.shared.running.borrow().clone();
        if let Some((pid, _)) = running {
            // It may have ended just now.
            let _ = prlimit(Some(pid), Resource::Nofile, limit);
        }
    }

    fn signal(&self, signal: Signal) {
        let running = self.shared.running.borrow().clone();
        if let Some((_, process)) = running {
            // It may have ended just now.
            let _ = pidfd_send_signal(&process, signal);
        }
    }

    pub fn unasked_ends(&self) -> Vec<String> {
        self.shared.unasked.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, tail(&self.shared.log));
        }
        self.wanted.send_replace(false);
        self.signal(Signal::KILL);
        self.supervisor.abort();
    }
}

async fn supervise(
    make: impl Fn() -> Command,
    mut wants: watch::Receiver<bool>,
    shared: Arc<Shared>,
) {
    while wants.wait_for(|wanted| *wanted).await.is_ok() {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&shared.log)
            .unwrap();
        let mut command = make();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let pid = child.id().unwrap();
        tell_keeper('+', pid);
        let pid_of_child = Pid::from_raw(pid.cast_signed()).unwrap();
        let handle = pidfd_open(pid_of_child, PidfdFlags::empty()).unwrap();
        let handle = Arc::new(handle);
        shared.running.send_replace(Some((pid_of_child, handle)));
        // It may have been unwanted while it had no handle.
        if !*wants.borrow() {
            let _ = child.start_kill();
        }
        let status = child.wait().await.unwrap();
        tell_keeper('-', pid);
        if *wants.borrow() {
            let end = format!("{status}\n{}", tail(&shared.log));
            shared.unasked.lock().unwrap().push(end);
            shared.running.send_replace(None);
            sleep(RESTART_PAUSE).await;
        } else {
            shared.running.send_replace(None);
        }
    }
}

/// The end of what was written.
fn tail(log: &Path) -> String {
    const LINES: usize = 5;
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Ends what runs when this process ends without a chance to do so itself: a shell that notices the end
/// of its input.
const KEEPER: &str = r#"
while read -r line; do
    pid=${line#?}
    case $line in
    +*) pids="$pids $pid" ;;
    -*) left=; for one in $pids; do [ "$one" = "$pid" ] || left="$left $one"; done; pids=$left ;;
    esac
done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
"#;

fn tell_keeper(what: char, pid: u32) {
    static KEEPER_INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let input = KEEPER_INPUT.get_or_init(|| {
        let mut keeper = std::process::Command::new("sh");
        keeper.args(["-c", KEEPER]).stdin(Stdio::piped());
        Mutex::new(keeper.spawn().unwrap().stdin.take().unwrap())
    });
    writeln!(input.lock().unwrap(), "{what}{pid}").unwrap();
}
