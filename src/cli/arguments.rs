//! What can be written on the command line. The flags of `serve` come from the table of settings.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::Sources;
use crate::config::layer::{Given, Layer};
use crate::config::setting::SETTINGS;

pub fn command() -> Command {
    Command::new("justonce")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Submit a task or a file as often as you like; it runs just once.")
        .args_conflicts_with_subcommands(true)
        .args(settings())
        .subcommand(serve())
        .subcommand(keys())
        .subcommand(healthcheck())
        .subcommand(doctor())
        .subcommand(Command::new("openapi").about("Print the OpenAPI document of the HTTP API"))
        .subcommand(launch())
        .subcommand(sandbox())
}

/// The settings on the command line, and the environment.
pub fn sources(matches: &ArgMatches) -> Sources {
    let given = |key: &'static str, flag: &str| {
        // Commands that only talk to the service know a few of the settings.
        let text = matches.try_get_one::<String>(key).ok()??.clone();
        let origin = format!("--{flag}");
        Some((key, Given { text, origin }))
    };
    let flags = SETTINGS
        .iter()
        .filter_map(|setting| given(setting.key, setting.flag));
    Sources {
        command_line: flags.collect::<Layer>(),
        environment: std::env::vars_os().collect(),
        config: matches.get_one::<PathBuf>("config").cloned(),
    }
}

fn serve() -> Command {
    Command::new("serve")
        .about("Serve the HTTP API and run tasks (the default)")
        .args(settings())
}

fn settings() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Task types, limits and settings (JUSTONCE_CONFIG) [default: justonce.toml, if it is there]");
    let flags = SETTINGS.iter().map(|setting| {
        let flag = Arg::new(setting.key)
            .long(setting.flag)
            .value_name(setting.value)
            .help(format!("{} ({})", setting.help, setting.variable));
        match setting.value {
            "BOOL" => flag.num_args(0..=1).default_missing_value("true"),
            _ => flag,
        }
    });
    std::iter::once(config).chain(flags).collect()
}

fn keys() -> Command {
    let user = Arg::new("user")
        .long("user")
        .value_name("USER")
        .required(true);
    let scopes = Arg::new("scopes")
        .long("scopes")
        .value_name("SCOPES")
        .value_delimiter(',')
        .action(ArgAction::Append)
        .default_value("submit,read,cancel");
    let expires_at = Arg::new("expires_at").long("expires-at").value_name("TIME");
    Command::new("keys")
        .about("Make, list and revoke API keys, at a service that runs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(remote())
        .args(settings_for_clients())
        .subcommand(
            Command::new("create")
                .about("Make an API key; its secret is shown once")
                .arg(user.help("Whom the key stands for"))
                .arg(scopes.help(
                    "Of submit, read, cancel, lease, metrics, act-as, admin; comma-separated",
                ))
                .arg(
                    expires_at.help("When it ends, such as 2030-01-01T00:00:00Z [default: never]"),
                ),
        )
        .subcommand(Command::new("list").about("List the API keys, without their secrets"))
        .subcommand(
            Command::new("revoke").about("Revoke an API key").arg(
                Arg::new("id")
                    .value_name("ID")
                    .required(true)
                    .help("The id of the key"),
            ),
        )
}

fn healthcheck() -> Command {
    let url = remote().swap_remove(0);
    Command::new("healthcheck")
        .about("Ask the service on this machine whether it is ready: exit status 0 or 1")
        .arg(url)
        .args(settings_for_clients())
}

fn doctor() -> Command {
    let accept = Arg::new("accept_state_loss")
        .long("accept-state-loss")
        .action(ArgAction::SetTrue)
        .help("Serve again although Redis came back emptied or older: what it lost stays lost");
    let wanted = [
        "config",
        "store",
        "data",
        "blobs",
        "redis_url",
        "redis_prefix",
        "redis_assume",
        "redis_ca",
        "durability",
    ];
    let wanted = |arg: &Arg| wanted.contains(&arg.get_id().as_str());
    Command::new("doctor")
        .about("Look for contradictions in a store, beside the service or without it: exit status 0 when it is well")
        .arg(accept)
        .args(settings().into_iter().filter(wanted))
}

fn remote() -> Vec<Arg> {
    let url = Arg::new("url")
        .long("url")
        .value_name("URL")
        .global(true)
        .help("Where the service is (JUSTONCE_URL) [default: where the settings say it listens]");
    let key = Arg::new("key")
        .long("key")
        .value_name("KEY")
        .global(true)
        .help("An API key with the scope admin; better given by JUSTONCE_API_KEY");
    vec![url, key]
}

/// Those that say where the service on this machine is.
fn settings_for_clients() -> Vec<Arg> {
    let wanted = |arg: &Arg| ["config", "listen", "base_path"].contains(&arg.get_id().as_str());
    let hidden = |arg: Arg| arg.global(true).hide_short_help(true);
    settings().into_iter().filter(wanted).map(hidden).collect()
}

/// For the service itself: see [`crate::runners::command::launcher`].
fn launch() -> Command {
    let service = Arg::new("service").required(true);
    let program = Arg::new("program")
        .required(true)
        .num_args(1..)
        .last(true)
        .value_parser(value_parser!(OsString));
    Command::new("launch").hide(true).arg(service).arg(program)
}

fn sandbox() -> Command {
    Command::new("sandbox")
        .hide(true)
        .arg(Arg::new("kind").required(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_has_a_flag_with_and_without_serve() {
        for words in [
            &["justonce", "--workers", "3"][..],
            &["justonce", "serve", "--workers=3"],
        ] {
            let matches = command().try_get_matches_from(words).unwrap();
            let matches = matches.subcommand().map_or(&matches, |(_, below)| below);
            let sources = sources(matches);
            assert_eq!(sources.command_line["workers"].text, "3");
            assert_eq!(sources.command_line["workers"].origin, "--workers");
        }
    }

    #[test]
    fn a_program_may_have_arguments_that_look_like_ours() {
        let words = ["justonce", "launch", "1", "--", "/bin/sh", "--config", "-c"];
        let matches = command().try_get_matches_from(words).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        assert_eq!(matches.get_many::<OsString>("program").unwrap().len(), 3);
    }
}
