//! The command line. `justonce` alone is `justonce serve`.

pub mod arguments;
pub mod client;
pub mod doctor;
pub mod healthcheck;
pub mod keys;

use std::process::ExitCode;

use clap::ArgMatches;

use crate::app;
use crate::app::greeting::say;
use crate::config::Settings;
use crate::config::error::ConfigError;
use crate::runners::command::launcher;
use crate::sandbox::child;

/// What was asked for cannot be: a wrong argument or setting.
const EXIT_USAGE: u8 = 2;

pub fn main() -> ExitCode {
    let matches = match arguments::command().try_get_matches() {
        Ok(matches) => matches,
        // Help and version come this way, too, and are no errors.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    match matches.subcommand() {
        None => serve(&matches),
        Some(("serve", matches)) => serve(matches),
        Some(("keys", matches)) => ended(keys::run(matches)),
        Some(("healthcheck", matches)) => ended(healthcheck::run(matches)),
        Some(("doctor", matches)) => ended(doctor::run(matches)),
        Some(("openapi", _)) => openapi(),
        Some(("launch", matches)) => launch(matches),
        Some(("sandbox", matches)) => sandbox(matches),
        Some((name, _)) => unreachable(name),
    }
}

/// What goes wrong in a command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Failed(String),
}

fn serve(matches: &ArgMatches) -> ExitCode {
    let sources = arguments::sources(matches);
    let settings = match Settings::load(sources.clone()) {
        Ok(settings) => settings,
        Err(error) => return ended(Err(error.into())),
    };
    match app::run(settings, sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended(Err(CliError::Failed(format!("{error:#}")))),
    }
}

fn openapi() -> ExitCode {
    match app::openapi() {
        Ok(document) => {
            say(&format!("{document}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => ended(Err(CliError::Failed(error.to_string()))),
    }
}

fn launch(matches: &ArgMatches) -> ExitCode {
    let service = matches.get_one::<String>("service");
    let mut words = matches.get_many("program").into_iter().flatten().cloned();
    match (service, words.next()) {
        (Some(service), Some(program)) => {
            launcher::launch(service, &program, &words.collect::<Vec<_>>())
        }
        _ => ExitCode::from(EXIT_USAGE),
    }
}

/// No runtime and no other thread may exist yet: the limits hold for this thread and those it starts.
fn sandbox(matches: &ArgMatches) -> ExitCode {
    match matches.get_one::<String>("kind") {
        Some(kind) => child::main(kind),
        None => ExitCode::from(EXIT_USAGE),
    }
}

fn ended(result: Result<(), CliError>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("justonce: {error}");
    match error {
        CliError::Config(_) => ExitCode::from(EXIT_USAGE),
        CliError::Failed(_) => ExitCode::FAILURE,
    }
}

/// The parser lets only declared commands through.
fn unreachable(name: &str) -> ExitCode {
    eprintln!("justonce: there is no command {name}");
    ExitCode::from(EXIT_USAGE)
}
