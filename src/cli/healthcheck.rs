//! `justonce healthcheck`: for container images, which have no curl.

use clap::ArgMatches;
use reqwest::Method;

use super::CliError;
use super::client::{Client, block_on};

pub fn run(matches: &ArgMatches) -> Result<(), CliError> {
    let client = Client::new(matches)?;
    block_on(async {
        let request = client.request(Method::GET, "/readyz");
        let (status, _) = client.send(request).await?;
        match status.is_success() {
            true => Ok(()),
            false => Err(CliError::Failed(format!("not ready: {status}"))),
        }
    })
}
