//! The log goes to standard error; standard output is for what the operator is to read.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use super::log_buffer::{LastLines, LogBuffer};
use crate::config::{Log, LogFormat};

/// The log is whole once what this returns is dropped. Has no effect when there is a log already.
pub fn start(log: &Log) -> LastLines {
    let (buffer, last_lines) = LogBuffer::start(stderr());
    let usual = match stderr().is_terminal() {
        true => LogFormat::Text,
        false => LogFormat::Json,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&log.filter))
        .with_writer(buffer);
    let started = match log.format.unwrap_or(usual) {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    if let Err(error) = started {
        eprintln!("justonce: {error}");
    }
    last_lines
}
