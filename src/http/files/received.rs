//! The bytes of one file, on their way from a request into storage.

use axum::body::Body;
use http_body_util::BodyExt;

use crate::blobs::Incoming;
use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::http::admission::{Upload, not_stored};
use crate::http::api::Api;
use crate::http::body::problem_of_body_error;
use crate::http::code::Code;
use crate::http::problem::Problem;
use bytes::Bytes;

/// Whole in number and content, and not yet published: dropping it leaves nothing behind.
pub struct Received {
    pub file: File,
    incoming: Box<dyn Incoming>,
}

/// What the client calls a file.
#[derive(Clone, Debug, Default)]
pub struct Label {
    pub part: Option<String>,
    pub name: Option<String>,
    pub media_type: Option<String>,
}

impl Label {
    pub fn file(self, sha256: Sha256Digest, size: u64) -> File {
        File {
            part: self.part,
            sha256,
            size,
            name: self.name,
            media_type: self.media_type,
            generation: None,
        }
    }
}

/// A file whose bytes are still coming.
pub struct Receiving {
    incoming: Box<dyn Incoming>,
    room: u64,
}

impl Receiving {
    pub async fn begin(api: &Api) -> Result<Self, Problem> {
        let incoming = api.blobs.receive().await.map_err(not_stored)?;
        let room = api.limits.file_bytes_max;
        Ok(Receiving { incoming, room })
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        let Some(room) = self.room.checked_sub(bytes.len() as u64) else {
            return Err(too_large());
        };
        self.room = room;
        self.incoming.write(bytes).await.map_err(not_stored)
    }

    pub fn end(self, label: Label) -> Received {
        let (sha256, size) = self.incoming.digest();
        Received {
            file: label.file(sha256, size),
            incoming: self.incoming,
        }
    }
}

impl Received {
    /// The whole of a body is one file.
    pub async fn from_body(api: &Api, mut body: Body, label: Label) -> Result<Self, Problem> {
        let mut receiving = Receiving::begin(api).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| problem_of_body_error(&error))?;
            // Trailers are no part of the file.
            if let Ok(bytes) = frame.into_data() {
                receiving.write(bytes).await?;
            }
        }
        Ok(receiving.end(label))
    }

    pub fn into_upload(self, known: bool) -> Upload {
        Upload {
            incoming: self.incoming,
            known,
        }
    }
}

pub fn too_large() -> Problem {
    Problem::new(
        Code::PayloadTooLarge,
        "The file is larger than this service accepts.",
    )
}
