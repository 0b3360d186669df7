//! A multipart body, held within bounds that the reader of parts does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;

use super::received::too_large;
use crate::http::body::problem_of_body_error;
use crate::http::code::Code;
use crate::http::problem::Problem;

/// Bytes that may come in while the head of the next part is looked for. The reader keeps them in
/// memory, so that a body without a boundary would fill it otherwise; read-ahead counts too.
const PART_HEAD_BYTES_MAX: u64 = 1024 * 1024;

/// Parts one by one, with the bytes between them bounded.
pub struct FormBody {
    pub parts: Multipart,
    pub allowance: Allowance,
}

/// How many more bytes may come in before something is wrong.
#[derive(Clone, Debug, Default)]
pub struct Allowance(Arc<AtomicU64>);

impl Allowance {
    pub fn part_head(&self) {
        self.0.store(PART_HEAD_BYTES_MAX, Ordering::Relaxed);
    }

    /// The bytes of a part go somewhere, and are counted there.
    pub fn part_bytes(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    fn take(&self, count: u64) -> Result<(), HeadTooLong> {
        let left = self.0.load(Ordering::Relaxed).checked_sub(count);
        self.0.store(left.ok_or(HeadTooLong)?, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no part begins within reach")]
struct HeadTooLong;

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body is too large")]
struct TooLarge;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl FormBody {
    /// `bytes_max` bounds the whole body: its files, its texts and what is between them.
    pub async fn open(headers: &HeaderMap, body: Body, bytes_max: u64) -> Result<Self, Problem> {
        if http_body::Body::size_hint(&body).lower() > bytes_max {
            return Err(too_large());
        }
        let allowance = Allowance::default();
        let (bound, mut room) = (allowance.clone(), bytes_max);
        let bounded = body.into_data_stream().map(move |bytes| {
            let bytes = bytes?;
            let count = bytes.len() as u64;
            room = room.checked_sub(count).ok_or(TooLarge)?;
            bound.take(count)?;
            Ok::<_, BoxError>(bytes)
        });
        let mut request = Request::new(Body::from_stream(bounded));
        if let Some(value) = headers.get(header::CONTENT_TYPE) {
            let value = value.clone();
            request.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        DefaultBodyLimit::disable().apply(&mut request);
        let parts = Multipart::from_request(request, &()).await;
        let parts = parts.map_err(|error| {
            let detail = "The Content-Type of a form must name its boundary.";
            Problem::new(Code::InvalidRequest, detail).caused_by(error)
        })?;
        Ok(FormBody { parts, allowance })
    }
}

pub fn problem_of(error: &MultipartError) -> Problem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooLarge>() {
            return too_large();
        }
        if error.is::<HeadTooLong>() {
            return malformed("no part begins where one should");
        }
        cause = error.source();
    }
    match error.status() {
        StatusCode::BAD_REQUEST => malformed(&error.body_text()),
        _ => problem_of_body_error(error),
    }
}

pub fn malformed(detail: &str) -> Problem {
    let detail = format!("The form cannot be read to its end: {detail}.");
    Problem::new(Code::InvalidRequest, detail)
}
