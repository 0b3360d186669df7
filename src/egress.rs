//! The one place that makes outgoing HTTP requests for addresses that users or task types name.
//!
//! Such a request must never reach what only this machine or its network can: each address is judged
//! before a packet leaves ([`rules`]), names when they have been resolved ([`resolver`]), and the address
//! that was judged is the one that is connected to. Redirects are followed by hand, so that every hop is
//! judged. Proxy variables of the environment count for nothing. Time, head, body and what it unpacks to
//! are bounded.

pub mod address;
pub mod body;
pub mod error;
pub mod resolver;
pub mod retry_after;
pub mod rules;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use tokio::time::{Instant, timeout_at};
use url::Url;

use error::EgressError;
use resolver::{Guard, Lookup};
use rules::Rules;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Egress {
    http: Client,
    rules: Rules,
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Until when the whole answer must be there.
    pub deadline: Instant,
    /// Redirects that are followed, which only requests without a body should be.
    pub redirects_max: usize,
    /// Sent only to the address that they were learnt from, wherever redirects lead.
    pub conditions: Option<Conditions>,
}

/// Header fields that ask for what has changed only.
#[derive(Clone, Debug)]
pub struct Conditions {
    pub url: Url,
    pub headers: HeaderMap,
}

/// The head of an answer; the body is read by [`Answer::body`].
#[derive(Debug)]
pub struct Answer {
    /// Where it came from, after all redirects.
    pub url: Url,
    response: Response,
    deadline: Instant,
}

/// How this service names itself.
const USER_AGENT: &str = concat!("JustOnce/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that nobody uses is closed after this.
const IDLE: Duration = Duration::from_secs(30);

impl Request {
    pub fn get(url: Url, deadline: Instant) -> Self {
        Request {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            deadline,
            redirects_max: 0,
            conditions: None,
        }
    }

    /// A JSON document, and no redirects.
    pub fn post_json(url: Url, body: impl Into<Bytes>, deadline: Instant) -> Self {
        let json = HeaderValue::from_static("application/json");
        Request {
            method: Method::POST,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
            body: body.into(),
            ..Request::get(url, deadline)
        }
    }
}

impl Egress {
    /// `lookup` resolves names; they are judged here.
    pub fn new(rules: Rules, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        crate::cryptography::choose();
        let http = Client::builder()
            .user_agent(USER_AGENT)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .dns_resolver(Arc::new(Guard::new(rules.clone(), lookup)))
            .build()?;
        Ok(Egress { http, rules })
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Sends a request, follows redirects as far as it allows, and gives the head of the answer.
    pub async fn send(&self, mut request: Request) -> Result<Answer, EgressError> {
        let mut left = request.redirects_max;
        loop {
            self.rules.check(&request.url)?;
            let response = self.hop(&request).await?;
            let Some(next) = followed(&request, &response)? else {
                return Ok(Answer {
                    url: request.url,
                    response,
                    deadline: request.deadline,
                });
            };
            if left == 0 {
                return Err(EgressError::TooManyRedirects(request.redirects_max));
            }
            left -= 1;
            request.url = next;
        }
    }

    async fn hop(&self, request: &Request) -> Result<Response, EgressError> {
        let mut headers = request.headers.clone();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let conditions = request.conditions.as_ref();
        if let Some(learnt) = conditions.filter(|learnt| learnt.url == request.url) {
            headers.extend(learnt.headers.clone());
        }
        let sent = self
            .http
            .request(request.method.clone(), request.url.clone())
            .headers(headers)
            .body(request.body.clone())
            .send();
        match timeout_at(request.deadline, sent).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(EgressError::TimedOut),
        }
    }
}

/// Where the answer sends a request that follows redirects.
fn followed(request: &Request, response: &Response) -> Result<Option<Url>, EgressError> {
    let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if request.redirects_max == 0 || !moved {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else {
        return Ok(None);
    };
    let location = location.to_str().map_err(|_| EgressError::BadRedirect)?;
    let mut next = request
        .url
        .join(location)
        .map_err(|_| EgressError::BadRedirect)?;
    next.set_fragment(None);
    Ok(Some(next))
}

impl Answer {
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The field's value, if it is there once and is text.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        let mut values = self.response.headers().get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self, now: jiff::Timestamp) -> Option<Duration> {
        retry_after::parse(self.header(header::RETRY_AFTER)?, now)
    }

    /// The whole body, unpacked; at most so many bytes, before and after.
    pub async fn body(self, bytes_max: usize) -> Result<Bytes, EgressError> {
        let bytes = self.write_to(Vec::new(), bytes_max).await?;
        Ok(bytes.into())
    }

    /// The same, written to `target` as it comes.
    pub async fn write_to<W: Write>(self, target: W, bytes_max: usize) -> Result<W, EgressError> {
        let read = body::read(self.response, bytes_max, target);
        match timeout_at(self.deadline, read).await {
            Ok(read) => read,
            Err(_) => Err(EgressError::TimedOut),
        }
    }
}
