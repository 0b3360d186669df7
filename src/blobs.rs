//! The port to the bytes of files and large results.

pub mod inventory;
pub mod local;

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::domain::digest::Sha256Digest;
use crate::domain::file::BlobName;

#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Begins to receive bytes. What is dropped before [`Incoming::publish`] leaves nothing behind.
    async fn receive(&self) -> Result<Box<dyn Incoming>, BlobError>;

    async fn open(&self, name: &BlobName) -> Result<Blob, BlobError>;

    /// A path at which a runner on this machine can read the bytes.
    async fn local_path(&self, name: &BlobName) -> Result<std::path::PathBuf, BlobError>;

    /// Deletes the bytes, if they are there.
    async fn delete(&self, name: &BlobName) -> Result<(), BlobError>;

    /// Up to `max` copies that were stored longer than `age` ago, after `from` in the order of names.
    async fn list_older(
        &self,
        age: Duration,
        from: Option<&BlobName>,
        max: usize,
    ) -> Result<Vec<BlobName>, BlobError>;

    async fn ping(&self) -> Result<(), BlobError>;
}

/// Bytes on their way in: hashed while they are written.
#[async_trait]
pub trait Incoming: Send {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError>;

    /// SHA-256 and size of all that was written.
    fn digest(&self) -> (Sha256Digest, u64);

    /// Makes the bytes durable and readable under a name of their own, all at once.
    async fn publish(self: Box<Self>) -> Result<BlobName, BlobError>;
}

/// Stored bytes, open for reading.
pub struct Blob {
    /// In bytes.
    pub size: u64,
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
}

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("no such blob")]
    Missing,
    #[error("no room for more bytes")]
    Full,
    #[error("blob storage failed: {0}")]
    Failed(String),
}
