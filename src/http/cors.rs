//! Which browser origins may call: only those that the operator names.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser need not ask again: the longest that the common ones accept.
const MAX_AGE: Duration = Duration::from_secs(7200);

const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

const REQUEST_HEADERS: [&str; 20] = [
    "authorization",
    "content-type",
    "content-digest",
    "repr-digest",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-user-id",
    "tus-resumable",
    "upload-checksum",
    "upload-defer-length",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "x-http-method-override",
];

const EXPOSED_HEADERS: [&str; 27] = [
    "location",
    "retry-after",
    "etag",
    "idempotency-key",
    "idempotent-replayed",
    "idempotency-expires",
    "preference-applied",
    "durability",
    "ratelimit",
    "ratelimit-policy",
    "x-request-id",
    "content-disposition",
    "repr-digest",
    "content-digest",
    "want-content-digest",
    "www-authenticate",
    "deprecation",
    "sunset",
    "upload-offset",
    "upload-length",
    "upload-expires",
    "upload-metadata",
    "upload-defer-length",
    "tus-resumable",
    "tus-version",
    "tus-extension",
    "tus-max-size",
];

/// None when no origin is configured: then answers carry no CORS headers at all.
pub fn layer(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|o| o.parse().ok()).collect();
    if origins.is_empty() {
        return None;
    }
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods(METHODS)
            .allow_headers(REQUEST_HEADERS.map(HeaderName::from_static))
            .expose_headers(EXPOSED_HEADERS.map(HeaderName::from_static))
            .max_age(MAX_AGE)
            .vary([header::ORIGIN]),
    )
}
