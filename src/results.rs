//! What a runner gave, on its way into the record: beside it, when it is large.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::blobs::{BlobError, Blobs};
use crate::domain::file::BlobName;
use crate::limits::Limits;
use crate::store::TaskResult;

/// Why a result cannot be recorded.
#[derive(Debug)]
pub enum Refused {
    TooLarge,
    /// Its bytes could not be stored.
    NotStored(BlobError),
}

/// The result as a store records it.
pub async fn keep(
    blobs: &dyn Blobs,
    limits: &Limits,
    result: Box<RawValue>,
) -> Result<TaskResult, Refused> {
    let size = result.get().len();
    if size > limits.result_bytes_max {
        return Err(Refused::TooLarge);
    }
    if size <= limits.result_inline_bytes_max {
        return Ok(TaskResult::Inline(result));
    }
    store_bytes(blobs, result).await.map_err(Refused::NotStored)
}

async fn store_bytes(blobs: &dyn Blobs, result: Box<RawValue>) -> Result<TaskResult, BlobError> {
    let bytes = Bytes::from(String::from(Box::<str>::from(result)));
    let size = bytes.len() as u64;
    let mut incoming = blobs.receive().await?;
    incoming.write(bytes).await?;
    let name = incoming.publish().await?;
    Ok(TaskResult::Blob { name, size })
}

/// Deletes copies that no record names. One that stays behind is found by the sweep.
pub async fn delete(blobs: &dyn Blobs, disowned: &[BlobName]) {
    for name in disowned {
        if let Err(error) = blobs.delete(name).await {
            tracing::warn!(blob = %name, %error, "cannot delete a copy that no record names");
        }
    }
}
