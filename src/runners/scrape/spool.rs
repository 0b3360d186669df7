//! A page on its way to its parser: in a file, since many are fetched at a time.

use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::domain::digest::Sha256Digest;

/// Hashed while it is written; the file is deleted when it is dropped.
pub struct Spool {
    file: NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl Spool {
    pub fn open(folder: &Path) -> io::Result<Self> {
        Ok(Spool {
            file: NamedTempFile::new_in(folder)?,
            hasher: Sha256::new(),
            size: 0,
        })
    }

    /// The file, its size in bytes and its digest.
    pub fn finish(self) -> (NamedTempFile, u64, Sha256Digest) {
        let digest = Sha256Digest::from_bytes(self.hasher.finalize().into());
        (self.file, self.size, digest)
    }
}

impl Write for Spool {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        let written = self.file.write(chunk)?;
        self.hasher.update(&chunk[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
