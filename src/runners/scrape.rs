//! `scrape_website`: fetches a page and takes out its title, text and links.
//!
//! What was learnt is kept per user and URL ([`pages`]): a page that has not changed since, as its server says
//! (304) or as its bytes show, is not parsed again. The page itself is foreign, and parsed in a child process.

pub mod pages;
pub mod spool;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{self, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;
use url::Url;

use super::sandboxed::attempt_error;
use super::{Surroundings, outgoing};
use crate::domain::task::Task;
use crate::egress::{Answer, Conditions, Egress, Request};
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use crate::sandbox::{self, FileRef, Kind, Sandbox};
use pages::{Content, Page, Pages};
use spool::Spool;

pub struct Scrape {
    egress: Egress,
    pages: Pages,
    sandbox: Sandbox,
    /// Parsing uses the processor, although the attempt counts as one that waits.
    parsing: Arc<Semaphore>,
    page_bytes_max: usize,
    timeout: Duration,
}

#[derive(Deserialize)]
struct Params {
    url: String,
}

/// The result of the task.
#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    /// As it was asked for.
    url: &'a str,
    /// Where redirects led.
    #[serde(skip_serializing_if = "Option::is_none")]
    final_url: Option<&'a str>,
    #[serde(flatten)]
    content: &'a Content,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<&'a str>,
    /// Whether the content is that of an earlier look.
    unchanged: bool,
}

const REDIRECTS_MAX: usize = 10;
const ACCEPT: HeaderValue =
    HeaderValue::from_static("text/html, application/xhtml+xml, text/plain;q=0.9, */*;q=0.1");
/// What the parser reads. A page that declares no type is looked at.
const MEDIA_TYPES: [&str; 4] = ["text/html", "application/xhtml+xml", "text/plain", ""];
/// Longer validators are not kept, in bytes.
const VALIDATOR_LENGTH_MAX: usize = 1024;

impl Scrape {
    pub fn new(surroundings: &Surroundings) -> Self {
        Scrape {
            egress: surroundings.egress.clone(),
            pages: surroundings.pages.clone(),
            sandbox: surroundings.sandbox.clone(),
            parsing: surroundings.parsing.clone(),
            page_bytes_max: surroundings.limits.page_bytes_max,
            timeout: surroundings.limits.page_timeout,
        }
    }

    async fn scrape(&self, task: &Task) -> Result<Success, AttemptError> {
        let Params { url: asked } = serde_json::from_str(task.params.get())
            .map_err(|_| AttemptError::permanent("invalid-params", "the params hold no url"))?;
        let url = self.egress.rules().url(&asked);
        let mut url = url.map_err(|refusal| outgoing::attempt_error(refusal.into()))?;
        url.set_fragment(None);
        let known = self.pages.find(&task.user, &url).await;
        let answer = self.fetch(&url, known.as_ref()).await?;
        match (answer.status().as_u16(), known) {
            (304, Some(known)) => report(&asked, &url, &known, true),
            (200..=299, known) => self.read(task, &asked, &url, answer, known).await,
            _ => Err(outgoing::refused(&answer)),
        }
    }

    async fn fetch(&self, url: &Url, known: Option<&Page>) -> Result<Answer, AttemptError> {
        let mut request = Request::get(url.clone(), outgoing::deadline(self.timeout));
        request.redirects_max = REDIRECTS_MAX;
        request.headers.insert(header::ACCEPT, ACCEPT);
        request.conditions = known.and_then(conditions);
        let sent = self.egress.send(request).await;
        sent.map_err(outgoing::attempt_error)
    }

    async fn read(
        &self,
        task: &Task,
        asked: &str,
        url: &Url,
        answer: Answer,
        known: Option<Page>,
    ) -> Result<Success, AttemptError> {
        let media_type = answer
            .header(header::CONTENT_TYPE)
            .unwrap_or_default()
            .to_owned();
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if !MEDIA_TYPES.contains(&essence.to_ascii_lowercase().as_str()) {
            let message = "only HTML pages and plain text are read, and this is something else";
            return Err(AttemptError::permanent("unsupported-format", message));
        }
        let validator = |name| {
            let value: Option<&str> = answer.header(name);
            value
                .filter(|text| text.len() <= VALIDATOR_LENGTH_MAX)
                .map(str::to_owned)
        };
        let (etag, last_modified) = (validator(header::ETAG), validator(header::LAST_MODIFIED));
        let final_url = answer.url.clone();
        let spool = Spool::open(self.pages.folder()).map_err(unavailable)?;
        let spooled = answer.write_to(spool, self.page_bytes_max).await;
        let (file, size, sha256) = spooled.map_err(outgoing::attempt_error)?.finish();
        let same = |known: &Page| {
            known.sha256 == sha256
                && known.media_type == media_type
                && known.final_url == final_url.as_str()
        };
        let (content, unchanged) = match known.filter(same) {
            Some(known) => (known.content, true),
            None => (
                self.parse(&final_url, &media_type, &file, size).await?,
                false,
            ),
        };
        let page = Page {
            final_url: final_url.into(),
            etag,
            last_modified,
            sha256,
            media_type,
            content,
        };
        self.pages.keep(&task.user, url, &page).await;
        report(asked, url, &page, unchanged)
    }

    async fn parse(
        &self,
        url: &Url,
        media_type: &str,
        file: &NamedTempFile,
        size: u64,
    ) -> Result<Content, AttemptError> {
        if size == 0 {
            return Ok(Content::default());
        }
        let request = sandbox::Request {
            params: json!({ "url": url.as_str() }),
            file: Some(FileRef {
                path: file.path().to_owned(),
                name: None,
                media_type: Some(media_type.to_owned()),
                size: Some(size),
            }),
        };
        let _turn = self.parsing.acquire().await;
        let parsed = self.sandbox.run(Kind::ScrapeWebsite, &request).await;
        let parsed = parsed.map_err(attempt_error)?;
        serde_json::from_str(parsed.get())
            .map_err(|_| AttemptError::permanent("crashed", "the parser crashed on this page"))
    }
}

#[async_trait]
impl Runner for Scrape {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        // Whichever branch is not taken is dropped, and with it the request or the child.
        tokio::select! {
            ended = self.scrape(&attempt.task) => ended,
            () = attempt.cancel.cancelled() => Err(AttemptError::stopped()),
        }
    }

    fn load(&self) -> Load {
        Load::Waiting
    }
}

fn unavailable(error: std::io::Error) -> AttemptError {
    tracing::error!(%error, "a page cannot be kept for its parser");
    AttemptError::retryable(
        "file-unavailable",
        "the page could not be kept for its parser",
    )
}

/// Asks for the page only if it has changed, when its server gave something to tell by.
fn conditions(known: &Page) -> Option<Conditions> {
    let fields = [
        (header::IF_NONE_MATCH, &known.etag),
        (header::IF_MODIFIED_SINCE, &known.last_modified),
    ];
    let field = |(name, text): (header::HeaderName, &Option<String>)| {
        Some((name, HeaderValue::from_str(text.as_ref()?).ok()?))
    };
    let headers: HeaderMap = fields.into_iter().filter_map(field).collect();
    let url = Url::parse(&known.final_url).ok()?;
    (!headers.is_empty()).then_some(Conditions { url, headers })
}

fn report(asked: &str, url: &Url, page: &Page, unchanged: bool) -> Result<Success, AttemptError> {
    let report = Report {
        status: "success",
        url: asked,
        final_url: (page.final_url != url.as_str()).then_some(&page.final_url),
        content: &page.content,
        etag: page.etag.as_deref(),
        last_modified: page.last_modified.as_deref(),
        unchanged,
    };
    let written = serde_json::value::to_raw_value(&report);
    let written = written.map_err(|error| AttemptError::permanent("crashed", error.to_string()))?;
    Ok(written.into())
}
