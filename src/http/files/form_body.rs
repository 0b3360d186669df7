//! A multipart body, held within bounds that the reader of parts does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, BodyDataStream};
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::received::too_large;
use crate::http::body::problem_of_body_error;
use crate::http::code::Code;
use crate::http::problem::Problem;

/// Bytes that may come in while the head of the next part is looked for. The reader keeps them in
/// memory, so that a body without a boundary would fill it otherwise; read-ahead counts too.
const PART_HEAD_BYTES_MAX: u64 = 512 * 1024;

/// The reader takes all that is ready before it looks at any of it: it is given no more than this.
const PIECE_BYTES_MAX: usize = 128 * 1024;

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
        let flow = Flow {
            body: body.into_data_stream(),
            ready: Bytes::new(),
            begun: false,
            room: bytes_max,
            allowance: allowance.clone(),
        };
        let pieces = stream::try_unfold(flow, async |mut flow| {
            let piece = flow.next().await?;
            Ok::<_, BoxError>(piece.map(|piece| (piece, flow)))
        });
        let mut request = Request::new(Body::from_stream(pieces));
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

/// A body on its way to the reader.
struct Flow {
    body: BodyDataStream,
    /// Has come, and was not handed on yet.
    ready: Bytes,
    begun: bool,
    /// Bytes that may still come.
    room: u64,
    allowance: Allowance,
}

impl Flow {
    async fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        // Pending between pieces, and before the end: the reader looks at what it has only then.
        if std::mem::replace(&mut self.begun, true) {
            tokio::task::yield_now().await;
        }
        while self.ready.is_empty() {
            let Some(bytes) = self.body.next().await else {
                return Ok(None);
            };
            self.ready = bytes?;
            let count = self.ready.len() as u64;
            self.room = self.room.checked_sub(count).ok_or(TooLarge)?;
        }
        let count = self.ready.len().min(PIECE_BYTES_MAX);
        self.allowance.take(count as u64)?;
        Ok(Some(self.ready.split_to(count)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    async fn open(pieces: Vec<String>, bytes_max: u64) -> FormBody {
        let mut headers = HeaderMap::new();
        let form = HeaderValue::from_static("multipart/form-data; boundary=B");
        headers.insert(header::CONTENT_TYPE, form);
        let pieces = pieces.into_iter().map(std::io::Result::Ok);
        let body = Body::from_stream(stream::iter(pieces));
        let form = FormBody::open(&headers, body, bytes_max).await.unwrap();
        form.allowance.part_head();
        form
    }

    async fn first_part(pieces: Vec<String>, bytes_max: u64) -> Result<usize, Code> {
        let FormBody {
            mut parts,
            allowance,
        } = open(pieces, bytes_max).await;
        let part = parts.next_field().await;
        let part = part.map_err(|error| problem_of(&error).code())?;
        allowance.part_bytes();
        let bytes = part.unwrap().bytes().await;
        let bytes = bytes.map_err(|error| problem_of(&error).code())?;
        Ok(bytes.len())
    }

    fn head() -> String {
        "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n".into()
    }

    #[tokio::test]
    async fn parts_are_found_however_the_body_is_cut() {
        let large = "x".repeat(2_000_000);
        let whole = format!("{}{large}\r\n--B--\r\n", head());
        assert_eq!(
            first_part(vec![whole.clone()], 3_000_000).await,
            Ok(2_000_000)
        );
        let cut = whole.as_bytes().chunks(777);
        let cut = cut.map(|piece| String::from_utf8_lossy(piece).into_owned());
        assert_eq!(first_part(cut.collect(), 3_000_000).await, Ok(2_000_000));
        let late = vec!["preamble".repeat(10_000), format!("\r\n{whole}")];
        assert_eq!(first_part(late, 3_000_000).await, Ok(2_000_000));
    }

    #[tokio::test]
    async fn a_body_without_parts_is_not_read_to_its_end() {
        let noise = vec!["x".repeat(100_000); 30];
        assert_eq!(first_part(noise, u64::MAX).await, Err(Code::InvalidRequest));
        let endless_head = vec![head().replace("\r\n\r\n", "; x="), "x".repeat(2_000_000)];
        assert_eq!(
            first_part(endless_head, u64::MAX).await,
            Err(Code::InvalidRequest)
        );
    }

    #[tokio::test]
    async fn the_whole_is_bounded_and_must_end() {
        let open_ended = vec![head(), "x".repeat(1_000_000)];
        assert_eq!(
            first_part(open_ended.clone(), 900_000).await,
            Err(Code::PayloadTooLarge)
        );
        assert_eq!(
            first_part(open_ended, 2_000_000).await,
            Err(Code::InvalidRequest)
        );
    }
}
