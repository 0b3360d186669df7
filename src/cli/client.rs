//! Talks to a service that runs.

use std::time::Duration;

use clap::ArgMatches;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::CliError;
use super::arguments;
use crate::config::Settings;
use crate::config::edge::reachable;

/// One answer takes this long at most.
const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    url: String,
    key: Option<String>,
}

impl Client {
    pub fn new(matches: &ArgMatches) -> Result<Client, CliError> {
        crate::cryptography::choose();
        let failed = |error: reqwest::Error| CliError::Failed(error.to_string());
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
        let url = match given(matches, "url", "JUSTONCE_URL") {
            Some(url) => url,
            None => local_url(matches)?,
        };
        Ok(Client {
            http: http.build().map_err(failed)?,
            url: url.trim_end_matches('/').to_owned(),
            key: given(matches, "key", "JUSTONCE_API_KEY"),
        })
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The answer's status and JSON. `Null` when there is none.
    pub async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Value), CliError> {
        let no_answer =
            |error: reqwest::Error| CliError::Failed(format!("{}: {}", self.url, cause(&error)));
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(no_answer)?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// The JSON of an answer that is a success.
    pub async fn succeed(&self, request: RequestBuilder) -> Result<Value, CliError> {
        let (status, answer) = self.send(request).await?;
        if status.is_success() {
            return Ok(answer);
        }
        let text = ["detail", "title"].map(|name| answer[name].as_str());
        let text = text.into_iter().flatten().find(|text| !text.is_empty());
        let text = text.unwrap_or("no reason was given");
        Err(CliError::Failed(format!("{status}: {text}")))
    }
}

/// Runs one command to its end.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
    runtime.block_on(work)
}

fn given(matches: &ArgMatches, flag: &str, variable: &str) -> Option<String> {
    let flag = matches.try_get_one::<String>(flag).ok().flatten().cloned();
    flag.or_else(|| std::env::var(variable).ok())
        .filter(|text| !text.is_empty())
}

fn local_url(matches: &ArgMatches) -> Result<String, CliError> {
    let settings = Settings::load(arguments::sources(matches))?;
    let address = reachable(settings.listen);
    Ok(format!("http://{address}{}", settings.edge.base_path))
}

/// The innermost reason, which says most.
fn cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => cause(source),
        None => error.to_string(),
    }
}
