//! Foreign files are parsed in a child process that can do nothing but compute.
//!
//! The child is this same program, started as `justonce sandbox <kind>`. It reads one request, opens the one file, gives
//! up everything else (`confine`), parses, and answers once. The parent ([`Sandbox`]) bounds its time and output, and
//! turns every way in which it can end into a result or a [`SandboxError`].
//!
//! Why not the kernel's parent-death signal? It fires when the *thread* that started the child ends, and an async
//! runtime's threads come and go. Instead the parent keeps the child's standard input open, and the child exits when it
//! closes, which the kernel does for a parent that dies in any way.

pub mod child;
mod confine;
mod ending;
mod error;
mod layers;
mod limits;
mod wire;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

pub use self::error::SandboxError;
pub use self::layers::{Layer, Layers};
pub use self::limits::Limits;
pub use crate::parsers::{Code, Failure, FileRef, Kind, Request};

use self::ending::Ending;
use self::wire::Envelope;

/// How much of the child's standard error is kept for the log, in bytes; it may write more.
const STDERR_TAIL_BYTES: usize = 64 * 1024;

/// Starts parsers in child processes. Clones share what was found out about the layers.
#[derive(Debug, Clone)]
pub struct Sandbox {
    program: PathBuf,
    limits: Limits,
    layers: Arc<OnceCell<Layers>>,
}

impl Sandbox {
    /// `program` is this program's own path: `std::env::current_exe()`, or the binary in tests.
    pub fn new(program: PathBuf, limits: Limits) -> Self {
        Self {
            program,
            limits,
            layers: Arc::default(),
        }
    }

    /// The same sandbox with more time for a larger input, of which a parser must at least get through
    /// [`Limits::INPUT_BYTES_PER_SECOND`].
    pub fn for_input(&self, bytes: u64) -> Self {
        let more_seconds = bytes / Limits::INPUT_BYTES_PER_SECOND;
        let mut larger = self.clone();
        larger.limits.cpu_seconds += more_seconds;
        larger.limits.wall_time += Duration::from_secs(more_seconds.saturating_mul(4));
        larger
    }

    /// Runs one parser and returns its result. Dropping the future kills the child.
    pub async fn run(&self, kind: Kind, request: &Request) -> Result<Box<RawValue>, SandboxError> {
        let output = self.launch(kind.name(), request).await?;
        RawValue::from_string(output)
            .map_err(|_| SandboxError::crashed("the parser's result is not JSON"))
    }

    /// The layers of protection that are active on this system. Asks a child once, then remembers.
    pub async fn layers(&self) -> Result<&Layers, SandboxError> {
        self.layers
            .get_or_try_init(|| async {
                let output = self.launch(child::PROBE, &Request::default()).await?;
                serde_json::from_str(&output)
                    .map_err(|_| SandboxError::crashed("the probe's answer is not JSON"))
            })
            .await
    }

    async fn launch(&self, kind: &str, request: &Request) -> Result<String, SandboxError> {
        let line = Envelope::line(request, &self.limits).map_err(SandboxError::Start)?;
        let started = Instant::now();
        let mut child = self.start(kind).map_err(SandboxError::Start)?;
        let ending = match tokio::time::timeout(
            self.limits.wall_time,
            converse(&mut child, line, &self.limits),
        )
        .await
        {
            Ok(ending) => ending.map_err(SandboxError::Start)?,
            Err(_) => Ending::OutOfTime,
        };
        if matches!(ending, Ending::OutOfTime | Ending::OutOfRoom) {
            // Also takes it out of the process table.
            child.kill().await.map_err(SandboxError::Start)?;
        }
        let elapsed_ms = started.elapsed().as_millis() as u64;
        let outcome = ending.outcome();
        match &outcome {
            Ok(output) => tracing::debug!(
                kind,
                elapsed_ms,
                output_bytes = output.len(),
                "sandbox done"
            ),
            Err((error, stderr)) => {
                tracing::warn!(kind, elapsed_ms, %error, stderr, "sandbox refused")
            }
        }
        outcome.map_err(|(error, _)| error)
    }

    fn start(&self, kind: &str) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(["sandbox", kind])
            .env_clear()
            // The memory limit counts address space: neither our allocator nor the C library's is to reserve any for later.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Sends the request, reads the answer and waits for the end. Standard input stays open until then: see above.
async fn converse(child: &mut Child, line: Vec<u8>, limits: &Limits) -> std::io::Result<Ending> {
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("the child has no pipes"));
    };
    let send = async {
        // A child that is gone already says why by how it ended.
        let _ = stdin.write_all(&line).await;
        let _ = stdin.flush().await;
    };
    let answer = async {
        let (output, ()) = tokio::join!(read_all(&mut stdout, limits.output_bytes), send);
        output
    };
    // Fails as soon as the answer is too large, without waiting for the child to close its standard error.
    let both = async { tokio::try_join!(answer, async { Ok(read_tail(&mut stderr).await) }) };
    let (output, stderr) = match both.await {
        Ok(both) => both,
        Err(error) if error.kind() == ErrorKind::FileTooLarge => return Ok(Ending::OutOfRoom),
        Err(error) => return Err(error),
    };
    let status = child.wait().await?;
    drop(stdin);
    Ok(Ending::Exited {
        status,
        output,
        stderr,
    })
}

/// Everything; [`ErrorKind::FileTooLarge`] when it is more than `max` bytes.
async fn read_all(source: &mut (impl AsyncRead + Unpin), max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(max as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > max {
        Err(ErrorKind::FileTooLarge.into())
    } else {
        Ok(bytes)
    }
}

/// Reads to the end and keeps the last bytes.
async fn read_tail(source: &mut (impl AsyncRead + Unpin)) -> String {
    let mut tail = Vec::new();
    let mut block = [0; 8192];
    while let Ok(count @ 1..) = source.read(&mut block).await {
        tail.extend_from_slice(&block[..count]);
        if tail.len() > 2 * STDERR_TAIL_BYTES {
            tail.drain(..tail.len() - STDERR_TAIL_BYTES);
        }
    }
    tail.drain(..tail.len().saturating_sub(STDERR_TAIL_BYTES));
    String::from_utf8_lossy(&tail).into_owned()
}
