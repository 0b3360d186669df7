//! A server under measurement, as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use crate::redis_server::RedisServer;

pub enum Setup {
    /// This binary, as the limit program.
    Limit,
    /// This binary, as the limit program on Redis.
    RedisLimit,
    /// The service; the number of cores decides when `workers` is none.
    Service { workers: Option<usize> },
    /// The service with a type for each runner; `remote` answers what is run over HTTP.
    Runners { remote: SocketAddr },
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    folder: Arc<TempDir>,
    /// Where it keeps its tasks, if not in its folder.
    redis: Option<Arc<RedisServer>>,
}

impl Server {
    pub fn start(setup: &Setup) -> Server {
        Self::start_on(setup, None)
    }

    pub fn start_on(setup: &Setup, redis: Option<RedisServer>) -> Server {
        let folder = TempDir::new().expect("a folder for the data");
        Self::start_in(setup, Arc::new(folder), redis.map(Arc::new))
    }

    fn start_in(setup: &Setup, folder: Arc<TempDir>, redis: Option<Arc<RedisServer>>) -> Server {
        let url = redis.as_ref().map(|redis| redis.url());
        let mut command = match setup {
            Setup::Limit | Setup::RedisLimit => {
                let mut command = Command::new(std::env::current_exe().expect("this binary"));
                command.arg("limit-program").args(url);
                command
            }
            Setup::Service { .. } | Setup::Runners { .. } => {
                let (workers, types) = match setup {
                    Setup::Runners { remote } => (None, types(Some(*remote))),
                    Setup::Service { workers } => (*workers, types(None)),
                    Setup::Limit | Setup::RedisLimit => unreachable!("no service"),
                };
                let path = folder.path().join("justonce.toml");
                std::fs::write(path, types).expect("its configuration");
                let mut command = Command::new(program());
                command.env_clear().current_dir(folder.path());
                command.env("JUSTONCE_LISTEN", "127.0.0.1:0");
                command.env("JUSTONCE_DATA", folder.path().join("data"));
                command.env("JUSTONCE_DRAIN_DELAY_SECONDS", "0");
                command.env("RUST_LOG", "warn");
                if let Some(url) = url {
                    command.env("REDIS_URL", url);
                }
                if let Some(workers) = workers {
                    command.env("JUSTONCE_WORKERS", workers.to_string());
                }
                command
            }
        };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the server");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut lines = stdout.lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once("http://")?.1.trim().parse().ok());
        let address = address.expect("the line that says where it listens");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Server {
            child,
            address,
            folder,
            redis,
        }
    }

    /// Ends the process and starts another on the same data.
    pub fn restarted(mut self, workers: Option<usize>) -> Server {
        self.stop();
        let setup = Setup::Service { workers };
        Self::start_in(&setup, self.folder.clone(), self.redis.clone())
    }

    /// User and system time so far, with that of its Redis.
    pub fn cpu_seconds(&self) -> f64 {
        let redis = self.redis.as_ref().map_or(0.0, |redis| redis.cpu_seconds());
        cpu_seconds(&self.child) + redis
    }

    pub fn redis(&self) -> &RedisServer {
        self.redis.as_ref().expect("a server on Redis")
    }

    pub fn resident_mib(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The binary under measurement.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_justonce")
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The task types of the configuration: one for workers outside, and those of the other runners that need to be told.
fn types(remote: Option<SocketAddr>) -> String {
    let far = "[task_types.far]\nrunner = { external = true }\n";
    let Some(remote) = remote else {
        return far.to_owned();
    };
    format!(
        "{far}[task_types.program]\nrunner = {{ command = [\"true\"] }}\n\
         [task_types.remote]\nrunner = {{ http = \"http://{remote}/v1/tasks\" }}\n\
         [egress]\nallow = [\"127.0.0.1\"]\n"
    )
}

/// User and system time of a process so far, with that of the children that it has waited for.
pub fn cpu_seconds(child: &Child) -> f64 {
    const UTIME: usize = 11;
    let path = format!("/proc/{}/stat", child.id());
    let text = std::fs::read_to_string(path).expect("its times");
    // The second field is the name in parentheses, which may hold anything.
    let fields: Vec<_> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap_or(0.0);
    (UTIME..UTIME + 4).map(ticks).sum::<f64>() / rustix::param::clock_ticks_per_second() as f64
}
