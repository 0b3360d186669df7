//! What a body says it is.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;

use super::code::Code;
use super::problem::Problem;
use super::unquoted;

/// Characters that a file's media type may have.
const LENGTH_MAX: usize = 127;

/// How the items of a batch come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemsForm {
    /// As an array.
    Json,
    /// One on each line.
    NdJson,
}

/// Refuses a body that holds no list of JSON texts before a byte of it is read: as [`require_json`], or
/// `application/x-ndjson`.
pub fn require_items(headers: &HeaderMap, body: &Body) -> Result<ItemsForm, Problem> {
    let value = headers.get(header::CONTENT_TYPE);
    match value.and_then(|value| value.to_str().ok()) {
        Some(text) if essence(text) == "application/x-ndjson" && charset_is_utf8(text) => {
            refuse_content_codings(headers)?;
            Ok(ItemsForm::NdJson)
        }
        _ => require_json(headers, body).map(|()| ItemsForm::Json),
    }
}

/// Refuses a body that is not plain JSON before a byte of it is read: `application/json` or
/// `application/*+json`, in UTF-8.
pub fn require_json(headers: &HeaderMap, body: &Body) -> Result<(), Problem> {
    refuse_content_codings(headers)?;
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return match body.is_end_stream() {
            true => Err(Problem::new(Code::InvalidJson, "The body is empty.")),
            false => Err(unsupported(
                "The body has no Content-Type; send application/json.",
            )),
        };
    };
    match is_json(value) {
        true => Ok(()),
        false => Err(unsupported("Send application/json in UTF-8.")),
    }
}

/// A file is stored as it is sent, and a coded one would be other bytes than its digest names.
pub fn refuse_content_codings(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let refused = unsupported("Bodies are read without Content-Encoding only.");
    Err(refused.with_header(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    ))
}

/// The media type of a file, without parameters. `application/octet-stream` declares nothing.
pub fn of_file(value: Option<&str>) -> Option<String> {
    let essence = essence(value?);
    let (kind, subtype) = essence.split_once('/')?;
    let valid = is_token(kind) && is_token(subtype) && essence.len() <= LENGTH_MAX;
    (valid && essence != "application/octet-stream").then_some(essence)
}

pub fn is_form_data(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    text.is_some_and(|text| essence(text) == "multipart/form-data")
}

fn is_json(value: &HeaderValue) -> bool {
    if value == "application/json" {
        return true;
    }
    let Ok(text) = value.to_str() else {
        return false;
    };
    let essence = essence(text);
    let structured = essence
        .strip_prefix("application/")
        .and_then(|subtype| subtype.strip_suffix("+json"))
        .is_some_and(is_token);
    (essence == "application/json" || structured) && charset_is_utf8(text)
}

fn charset_is_utf8(text: &str) -> bool {
    let parameters = unquoted::split(text, ';').into_iter().skip(1);
    let mut named = parameters.filter_map(|parameter| parameter.split_once('='));
    named.all(|(name, value)| {
        let charset = unquoted::unquote(value.trim());
        !name.trim().eq_ignore_ascii_case("charset") || charset.eq_ignore_ascii_case("utf-8")
    })
}

fn essence(text: &str) -> String {
    let essence = text.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(legal)
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(Code::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_few_names() {
        let is_json = |value: &'static str| is_json(&HeaderValue::from_static(value));
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/vnd.acme.task+json; v=1",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "text/json",
            "application/jsonp",
            "application/+json",
            "application/json; charset=latin1",
            "application/x-www-form-urlencoded",
            "",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn octet_stream_declares_nothing() {
        assert_eq!(
            of_file(Some("Text/CSV; header=present")).as_deref(),
            Some("text/csv")
        );
        for nothing in [
            None,
            Some("application/octet-stream"),
            Some("csv"),
            Some("a/b c"),
        ] {
            assert_eq!(of_file(nothing), None, "{nothing:?}");
        }
    }
}
