//! `justonce doctor`: looks at the store without the service.

use clap::ArgMatches;

use super::{CliError, arguments};
use crate::app::doctor;
use crate::app::greeting::say;
use crate::config::Settings;

pub fn run(matches: &ArgMatches) -> Result<(), CliError> {
    let settings = Settings::load(arguments::sources(matches))?;
    let failed = |error: anyhow::Error| CliError::Failed(format!("{error:#}"));
    if matches.get_flag("accept_state_loss") {
        match doctor::accept_state_loss(&settings).map_err(failed)? {
            0 => say("No replica has reported a loss: there is nothing to accept.\n"),
            replicas => say(&format!(
                "Accepted. {replicas} replicas have reported the loss and will serve again within seconds; \
                 those that are down will when they start. If Redis was emptied, its API keys are gone too: \
                 restart a replica to have the first one made.\n"
            )),
        }
        return Ok(());
    }
    let report = doctor::examine(&settings).map_err(failed)?;
    for line in &report.lines {
        say(&format!("{line}\n"));
    }
    match report.is_well {
        true => Ok(()),
        false => Err(CliError::Failed("the store is not well".to_owned())),
    }
}
