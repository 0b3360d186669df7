//! The child's side: read the request, open the file, give up everything else, parse, answer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

use super::confine::confine;
use super::wire::{Envelope, exit};
use crate::parsers::{self, Code, Failure, Kind, Request};

/// The kind that parses nothing and answers which layers are active.
pub const PROBE: &str = "probe";
/// Of the thread that parses, in bytes: parsers of nested formats recurse.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Runs as the child. The process must not have started other threads: they would escape.
pub fn main(kind: &str) -> ExitCode {
    let parser = Kind::from_name(kind);
    let Ok(Envelope { request, limits }) = Envelope::read(io::stdin().lock()) else {
        return ExitCode::from(exit::USAGE);
    };
    if parser.is_none() && kind != PROBE {
        return ExitCode::from(exit::USAGE);
    }
    let limits = limits.unwrap_or_default();
    let file = open(&request);
    let layers = confine(&limits);
    watch_parent();
    let outcome = match parser {
        Some(parser) => file.and_then(|file| parse(parser, request, file)),
        None => serde_json::to_vec(&layers).map_err(|_| crashed()),
    };
    match outcome {
        Ok(output) if output.len() > limits.output_bytes => answer(
            exit::REFUSED,
            &failure(&Failure::new(Code::OutputLimit, "the result is too large")),
        ),
        Ok(output) => answer(exit::DONE, &output),
        Err(refusal) => answer(exit::REFUSED, &failure(&refusal)),
    }
}

fn open(request: &Request) -> Result<Option<File>, Failure> {
    let unreadable = || Failure::new(Code::Unreadable, "the file could not be opened");
    let Some(reference) = &request.file else {
        return Ok(None);
    };
    let file = File::open(&reference.path).map_err(|_| unreadable())?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(unreadable());
    }
    Ok(Some(file))
}

/// Parses in a thread of its own, for its stack; a panic there is a crash here.
fn parse(kind: Kind, request: Request, file: Option<File>) -> Result<Vec<u8>, Failure> {
    let parser = thread::Builder::new()
        .name("parser".to_owned())
        .stack_size(STACK_BYTES);
    let thread = parser
        .spawn(move || parsers::run(kind, &request, file))
        .map_err(|_| Failure::new(Code::MemoryLimit, "there is not enough memory to start"))?;
    thread.join().unwrap_or_else(|_| Err(crashed()))
}

/// Ends this process when its parent does: the parent's end of standard input closes then, and not before.
fn watch_parent() {
    let watch = thread::Builder::new()
        .name("parent-watch".to_owned())
        .stack_size(64 * 1024);
    let started = watch.spawn(|| {
        let mut byte = [0];
        while matches!(io::stdin().lock().read(&mut byte), Ok(1..)) {}
        std::process::exit(i32::from(exit::ORPHANED));
    });
    if started.is_err() {
        eprintln!("the parent cannot be watched");
    }
}

/// Writes the one answer.
fn answer(status: u8, output: &[u8]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(output).and_then(|()| stdout.flush());
    ExitCode::from(if written.is_ok() {
        status
    } else {
        exit::ORPHANED
    })
}

fn failure(failure: &Failure) -> Vec<u8> {
    serde_json::to_vec(failure).unwrap_or_default()
}

fn crashed() -> Failure {
    Failure::new(Code::Crashed, "the parser crashed on this file")
}
