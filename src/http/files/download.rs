//! `GET /v1/files/{sha256}`

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use tokio_util::io::ReaderStream;

use crate::blobs::Blob;
use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::disposition::attachment;
use crate::http::etag::ETag;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;

/// Bytes that are read and sent at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Download a file, or ask with `HEAD` whether this user has stored it
#[utoipa::path(
    get,
    path = "/v1/files/{sha256}",
    tag = "files",
    params(
        ("sha256" = String, Path, description = "64 hexadecimal digits"),
        ("If-None-Match" = Option<String>, Header, description = "ETags that are known already"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream", body = Vec<u8>, headers(
            ("ETag" = String, description = "The digest"),
            ("Content-Disposition" = String, description = "`attachment`, and the file's name"),
        )),
        (status = 304, description = "Known already"),
        (status = 404, description = "`not-found`: this user has no such file", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_file(
    State(api): State<Api>,
    caller: Caller,
    method: Method,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sha256 = Sha256Digest::parse_hex(&sha256).ok_or_else(Problem::not_found)?;
    let file = api.store.file(&caller.0.user, &sha256).await?;
    let file = file.ok_or_else(Problem::not_found)?;
    let etag = ETag::of_digest(&sha256);
    let mut response = if etag.is_known_by(&headers) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if method == Method::HEAD {
        described(&file, Body::empty())
    } else {
        let name = file.blob().ok_or_else(Problem::not_found)?;
        let blob = api.blobs.open(&name).await?;
        described(&file, Body::from_stream(pieces(blob)))
    };
    let fields = response.headers_mut();
    fields.insert(header::ETAG, etag.value());
    let private = HeaderValue::from_static("private, no-cache");
    fields.insert(header::CACHE_CONTROL, private);
    Ok(response)
}

/// Foreign bytes under our name: to be saved, not shown, whatever they claim to be.
pub fn described(file: &File, body: Body) -> Response {
    let mut response = Response::new(body);
    let fields = response.headers_mut();
    let media_type = file.media_type.as_deref().unwrap_or_default();
    let media_type = HeaderValue::try_from(media_type)
        .ok()
        .filter(|value| !value.is_empty());
    let unknown = HeaderValue::from_static("application/octet-stream");
    fields.insert(header::CONTENT_TYPE, media_type.unwrap_or(unknown));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(file.size));
    fields.insert(
        header::CONTENT_DISPOSITION,
        attachment(file.name.as_deref()),
    );
    let nosniff = HeaderValue::from_static("nosniff");
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
    fields.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
    response
}

/// A blob as the body of a response.
pub fn pieces(blob: Blob) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    ReaderStream::with_capacity(blob.reader, PIECE_BYTES)
}
