//! The real binary, in a folder of its own.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::client::Client;
use super::deadline::{until, within};

/// The line on standard output that says where the service listens.
const START_UP_LINE: &str = "JustOnce is listening on ";

/// How a service is to be started: folder, environment, configuration file, arguments.
#[derive(Clone)]
pub struct Setup {
    folder: Arc<TempDir>,
    env: Vec<(String, String)>,
}

impl Setup {
    pub fn new() -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let data = folder.path().join("data");
        let setup = Setup {
            folder,
            env: vec![],
        };
        setup
            .store()
            .env("JUSTONCE_LISTEN", "127.0.0.1:0")
            .env("JUSTONCE_DATA", data.to_str().unwrap())
            .env("JUSTONCE_WORKERS", "4")
            .env("JUSTONCE_DRAIN_DELAY_SECONDS", "0")
    }

    /// The store that all tests are to run over: the embedded one, or what `TEST_STORE` names.
    fn store(self) -> Self {
        match std::env::var("TEST_STORE").as_deref() {
            Ok("redis") => self
                .env("REDIS_URL", &super::redis::durable().url())
                .env("JUSTONCE_REDIS_PREFIX", &super::redis::prefix()),
            Ok(other) => panic!("TEST_STORE={other} is no store"),
            Err(_) => self,
        }
    }

    /// Sets a variable, in place of an earlier value.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(set, _)| set != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes `justonce.toml`.
    pub fn config(self, text: &str) -> Self {
        std::fs::write(self.folder().join("justonce.toml"), text).unwrap();
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The binary, or another one that `TEST_BINARY` names, with this setup's environment and nothing else of the service's, save the fault that a test of
    /// the tests has seeded.
    pub fn command(&self) -> Command {
        let other = std::env::var_os("TEST_BINARY");
        let built = || env!("CARGO_BIN_EXE_justonce").into();
        let mut command = Command::new(other.unwrap_or_else(built));
        command.current_dir(self.folder()).kill_on_drop(true);
        for (name, _) in std::env::vars() {
            let is_of_the_service =
                name.starts_with("JUSTONCE_") && name != "JUSTONCE_SEEDED_FAULT";
            if is_of_the_service || OTHER_NAMES.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub async fn start(self) -> Service {
        Service::start(self).await
    }
}

/// Variables of the service whose names do not begin with `JUSTONCE_`.
const OTHER_NAMES: [&str; 7] = [
    "REDIS_URL",
    "MOCK_MODE",
    "DEDUPLICATION_TTL",
    "MAX_RETRY_COUNT",
    "RETRY_DELAY_SECONDS",
    "LOG_FORMAT",
    "RUST_LOG",
];

/// A running service. Its log is shown when the test that owns it fails.
pub struct Service {
    setup: Setup,
    child: Child,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Service {
    async fn start(setup: Setup) -> Service {
        let service = Service::launch(setup).await;
        let client = service.client();
        until("readyz", async || {
            let reply = client.get("/readyz").try_send().await?;
            (reply.status == 200).then_some(())
        })
        .await;
        service
    }

    /// As soon as it listens, ready or not.
    pub async fn launch(setup: Setup) -> Service {
        let log = setup.folder().join("log");
        let errors = append(&log);
        let mut child = setup
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let (announce, announced) = oneshot::channel();
        let stdout = child.stdout.take().unwrap();
        tokio::spawn(copy_and_find(stdout, append(&log), announce));
        let Ok(url) = within("the start-up line", announced).await else {
            let status = within("the exit", child.wait()).await.unwrap();
            panic!("the service ended with {status}:\n{}", tail(&log));
        };
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let address = address.split('/').next().unwrap().parse().unwrap();
        Service {
            setup,
            child,
            address,
            log,
        }
    }

    pub fn client(&self) -> Client {
        let base_path = self
            .setup
            .env
            .iter()
            .find(|(n, _)| n == "JUSTONCE_BASE_PATH");
        let base_path = base_path.map_or("", |(_, path)| path.trim_end_matches('/'));
        Client::new(&format!("http://{}{base_path}", self.address))
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    pub fn folder(&self) -> &Path {
        self.setup.folder()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub async fn kill(mut self) -> Setup {
        self.child.kill().await.unwrap();
        self.setup.clone()
    }

    /// SIGTERM, without waiting for what follows.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub async fn ended(mut self) -> (ExitStatus, Setup) {
        let status = within("the exit", self.child.wait()).await.unwrap();
        (status, self.setup.clone())
    }

    /// Files below the data folder that hold uploaded bytes, or the beginnings of them.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect_files(&self.folder().join("data"), &mut found);
        let of_the_store = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.contains(".db")
                || name.contains("sqlite")
                || name.contains("lock")
                || name.contains("redis-")
                || name == "webhook-secret"
        };
        found.retain(|path| !of_the_store(path));
        found.sort();
        found
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the service ---\n{}", tail(&self.log));
        }
    }
}

/// Copies a stream to the log and announces the address when it is named.
async fn copy_and_find(
    stream: impl AsyncRead + Unpin,
    mut log: File,
    announce: oneshot::Sender<String>,
) {
    let mut announce = Some(announce);
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes()).unwrap();
        if let Some((_, url)) = line.split_once(START_UP_LINE)
            && let Some(announce) = announce.take()
        {
            let _ = announce.send(url.trim().to_owned());
        }
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

/// The last lines of the log.
fn tail(path: &Path) -> String {
    const LINES: usize = 60;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let mut shown = String::new();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        let _ = writeln!(shown, "{line}");
    }
    shown
}

fn collect_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_files(&path, found);
        } else {
            found.push(path);
        }
    }
}
