//! RFC 9457 problem documents: the one form in which anything is refused.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::code::{Code, Row};
use crate::blobs::BlobError;
use crate::domain::schema::Violation;
use crate::store::StoreError;

/// A refusal on its way to the client. `instance` and `request_id` are filled in by the layer that
/// knows the request.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    /// Members beyond those that every problem has.
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// IANA's URI, where a registered problem type is used instead of ours.
    registered_type: Option<&'static str>,
    /// For the log only.
    cause: Option<String>,
}

impl Problem {
    /// Seconds after which a request that was refused for lack of room may be sent again.
    const RETRY_AFTER_SECONDS: u32 = 1;

    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let problem = Problem {
            code,
            detail: detail.into(),
            members: Map::new(),
            headers: Vec::new(),
            registered_type: None,
            cause: None,
        };
        match code.row() {
            Row {
                retryable: true,
                status,
                ..
            } if *status != StatusCode::REQUEST_TIMEOUT => {
                problem.with_header(header::RETRY_AFTER, Self::RETRY_AFTER_SECONDS.into())
            }
            _ => problem,
        }
    }

    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.add_header(name, value);
        self
    }

    /// Whole seconds, in place of the usual ones.
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.headers.retain(|(name, _)| name != header::RETRY_AFTER);
        self.with_header(header::RETRY_AFTER, seconds.into())
    }

    pub fn add_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.push((name, value));
    }

    pub fn with_registered_type(mut self, uri: &'static str) -> Self {
        self.registered_type = Some(uri);
        self
    }

    /// What the log should say; clients never see it.
    pub fn caused_by(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// One value of the request is wrong.
    pub fn invalid(pointer: &str, detail: &str) -> Self {
        Self::violations(vec![Violation {
            pointer: pointer.to_owned(),
            detail: detail.to_owned(),
        }])
    }

    /// 422 with one `{pointer, detail}` for each value that is wrong.
    pub fn violations(violations: Vec<Violation>) -> Self {
        let detail = match violations.as_slice() {
            [one] => format!("{}: {}", one.pointer, one.detail),
            several => format!("{} values are not valid", several.len()),
        };
        let error = |v: Violation| json!({"pointer": v.pointer, "detail": v.detail});
        let errors: Vec<_> = violations.into_iter().map(error).collect();
        Problem::new(Code::ValidationFailed, detail).with("errors", errors)
    }

    /// The same, and what else is wrong; another problem than invalid values goes first, and alone.
    pub fn with_violations(self, mut violations: Vec<Violation>) -> Self {
        if self.code != Code::ValidationFailed || violations.is_empty() {
            return self;
        }
        let errors = self.members.get("errors").and_then(Value::as_array);
        let text = |error: &Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
        violations.extend(errors.into_iter().flatten().map(|error| Violation {
            pointer: text(error, "pointer"),
            detail: text(error, "detail"),
        }));
        Self::violations(violations)
    }

    pub fn not_found() -> Self {
        Problem::new(Code::NotFound, "There is no such resource.")
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The document, as it also stands inside other answers.
    pub fn document(
        &self,
        base_path: &str,
        instance: Option<&str>,
        request_id: Option<&str>,
    ) -> Value {
        let Row {
            slug,
            status,
            retryable,
            same_key,
            title,
            ..
        } = *self.code.row();
        let uri = self
            .registered_type
            .map_or_else(|| format!("{base_path}/problems/{slug}"), str::to_owned);
        let mut document = json!({
            "type": uri, "title": title, "status": status.as_u16(), "code": slug, "detail": self.detail,
            "retryable": retryable, "same_key": same_key,
        });
        if let Value::Object(members) = &mut document {
            members.extend(instance.map(|path| ("instance".to_owned(), path.into())));
            members.extend(request_id.map(|id| ("request_id".to_owned(), id.into())));
            members.extend(self.members.clone());
        }
        document
    }

    /// The whole response, once the request is known.
    pub fn into_document_response(
        self,
        base_path: &str,
        instance: &str,
        request_id: &str,
    ) -> Response {
        let document = self.document(base_path, Some(instance), Some(request_id));
        let mut response = Response::new(Body::from(document.to_string()));
        *response.status_mut() = self.code.row().status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

/// Leaves the problem in the response's extensions: the outermost layer, which knows request id and
/// path, writes it out. So handlers and layers refuse in the same form.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.row().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => {
                Problem::new(Code::StoreUnavailable, "The store did not answer in time.")
                    .caused_by(cause)
            }
            StoreError::Full => Problem::new(Code::StorageFull, "There is no room for more."),
            StoreError::StateLost => Problem::new(
                Code::StateLost,
                "The store came back emptied or older; an operator must accept that first.",
            ),
        }
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Missing => Problem::not_found(),
            BlobError::Full => Problem::new(Code::StorageFull, "There is no room for more files."),
            BlobError::Failed(cause) => {
                Problem::new(Code::StoreUnavailable, "File storage did not answer.")
                    .caused_by(cause)
            }
        }
    }
}
