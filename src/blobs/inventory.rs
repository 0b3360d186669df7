//! What is in a folder of stored copies, as somebody sees who only looks. Changes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::local::place_of;
use crate::domain::file::BlobName;

/// The folder that [`super::local::LocalBlobs`] keeps.
#[derive(Clone, Debug)]
pub struct Inventory {
    folder: PathBuf,
}

/// A copy on disk.
#[derive(Clone, Debug)]
pub struct Stored {
    pub name: BlobName,
    /// In bytes.
    pub size: u64,
    pub written_at: SystemTime,
}

impl Inventory {
    pub fn of(folder: &Path) -> Self {
        Inventory {
            folder: folder.to_owned(),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The copies whose digests begin with this byte.
    pub fn beginning_with(&self, first: u8) -> io::Result<Vec<Stored>> {
        let entries = match fs::read_dir(self.folder.join(format!("{first:02x}"))) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut stored = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(name) = name.to_str().and_then(BlobName::parse) {
                stored.extend(self.find(&name)?);
            }
        }
        Ok(stored)
    }

    /// Nothing if it is not there, or not any more.
    pub fn find(&self, name: &BlobName) -> io::Result<Option<Stored>> {
        match fs::metadata(place_of(&self.folder, name)) {
            Ok(file) => Ok(Some(Stored {
                name: name.clone(),
                size: file.len(),
                written_at: file.modified()?,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
