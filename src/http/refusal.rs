//! Answers to what never became a request: heads that are late, malformed or too large.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::caller::RequestId;
use super::code::Code;
use super::problem::Problem;

/// A refusal after which the connection is closed.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    request_id: RequestId,
    document: String,
}

impl Refusal {
    pub fn late_head(base_path: &str) -> Self {
        let detail = "The head of a request did not arrive in time.";
        Refusal::new(
            base_path,
            StatusCode::REQUEST_TIMEOUT,
            Problem::new(Code::RequestTimeout, detail),
        )
    }

    /// For the statuses with which hyper refuses heads.
    pub fn bad_head(base_path: &str, status: StatusCode) -> Self {
        let detail = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "The header fields are too many or too large."
            }
            StatusCode::URI_TOO_LONG => "The request target is too long.",
            _ => "The head of the request is not HTTP/1.1.",
        };
        let problem = Problem::new(Code::InvalidRequest, detail);
        Refusal::new(base_path, status, problem)
    }

    pub fn bad_host(base_path: &str) -> Self {
        let detail = "A request needs exactly one Host header, with a host and at most a port.";
        let problem = Problem::new(Code::InvalidRequest, detail);
        Refusal::new(base_path, StatusCode::BAD_REQUEST, problem)
    }

    fn new(base_path: &str, status: StatusCode, problem: Problem) -> Self {
        let request_id = RequestId::random();
        let mut document = problem.document(base_path, None, Some(&request_id.0));
        // 431 and 414 have no row of their own in the table of problems.
        if let Some(member) = document.get_mut("status") {
            *member = Value::from(status.as_u16());
        }
        tracing::info!(
            target: "justonce::access",
            status = status.as_u16(),
            request_id = &*request_id.0,
            "refused before it was a request"
        );
        Refusal {
            status,
            request_id,
            document: document.to_string(),
        }
    }

    /// The bytes for a socket that hyper has let go of.
    pub fn into_bytes(self) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let text = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
             connection: close\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
             x-request-id: {}\r\n\r\n{}",
            self.status.as_u16(),
            self.document.len(),
            self.request_id.0,
            self.document
        );
        text.into_bytes()
    }

    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.document));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "application/problem+json"),
            (header::CONNECTION, "close"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.extend(self.request_id.header());
        response
    }
}
