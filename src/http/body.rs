//! Bodies, read within their limits.

use std::error::Error;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::code::Code;
use super::problem::Problem;

/// Reads a body of at most `max` bytes; one whose declared length is more is not read at all.
pub async fn read_limited(body: Body, max: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(problem_of_body_error(error.as_ref())),
    }
}

/// What a body that could not be read to its end is answered with, where a reply is possible.
pub fn problem_of_body_error(error: &(dyn Error + 'static)) -> Problem {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return too_large();
        }
        cause = error.source();
    }
    Problem::new(Code::InvalidRequest, "The body was cut short.").caused_by(error)
}

fn too_large() -> Problem {
    Problem::new(
        Code::PayloadTooLarge,
        "The body is larger than this service accepts.",
    )
}
