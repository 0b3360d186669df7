//! The folders that this process owns while it runs.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::config::storage::{Storage, StoreChoice};

/// Owned until this is dropped: each is locked against other processes.
#[derive(Debug)]
pub struct Folders {
    data: Option<PathBuf>,
    blobs: Blobs,
    _locks: Vec<File>,
}

#[derive(Debug)]
enum Blobs {
    Kept(PathBuf),
    /// Goes with the process, like the records that name its files.
    Temporary(TempDir),
}

impl Folders {
    pub fn open(storage: &Storage) -> anyhow::Result<Folders> {
        let mut locks = Vec::new();
        if let Some(data) = &storage.data {
            locks.push(own(data)?);
        }
        let blobs = match &storage.blobs {
            // Replicas of one Redis share the bytes of files.
            Some(folder) if matches!(storage.store, StoreChoice::Redis(_)) => {
                locks.push(share(folder)?);
                Blobs::Kept(folder.clone())
            }
            // Two processes would sweep away each other's files.
            Some(folder) => {
                locks.push(own(folder)?);
                Blobs::Kept(folder.clone())
            }
            None => {
                Blobs::Temporary(tempfile::tempdir().context("cannot make a temporary folder")?)
            }
        };
        Ok(Folders {
            data: storage.data.clone(),
            blobs,
            _locks: locks,
        })
    }

    pub fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// Where is kept what was learnt of pages: with the data, or with what goes with the process.
    pub fn pages(&self) -> PathBuf {
        self.data().unwrap_or(self.blobs()).join("pages")
    }

    pub fn blobs(&self) -> &Path {
        match &self.blobs {
            Blobs::Kept(folder) => folder,
            Blobs::Temporary(folder) => folder.path(),
        }
    }
}

/// Makes the folder, for this user only, and locks it. The system releases the lock with the process.
fn own(folder: &Path) -> anyhow::Result<File> {
    locked(folder, File::try_lock)
}

/// As [`own`], beside others that do the same.
fn share(folder: &Path) -> anyhow::Result<File> {
    locked(folder, File::try_lock_shared)
}

fn locked(folder: &Path, lock_it: fn(&File) -> Result<(), TryLockError>) -> anyhow::Result<File> {
    make(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        // Network file systems grant a shared lock only to who may read, and a sole one to who may write.
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot write to {}", path.display()))?;
    match lock_it(&lock) {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another process works on {}; the command line talks to it over HTTP",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Makes the folder and those above it. A power loss must not take their names with all that is in them, so the
/// folder that holds each new one is synced; and the one above in any case, since whoever made it may have been killed.
fn make(folder: &Path) -> io::Result<()> {
    let mut made: Vec<_> = folder.ancestors().take_while(|f| !f.is_dir()).collect();
    if made.is_empty() {
        made.push(folder);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    for folder in made {
        if let Some(above) = folder.parent() {
            sync(above)?;
        }
    }
    Ok(())
}

fn sync(folder: &Path) -> io::Result<()> {
    let here = folder.as_os_str().is_empty();
    match File::open(if here { Path::new(".") } else { folder }) {
        Ok(folder) => folder.sync_all(),
        // One may own a folder in a place that one may not look into.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_on_one_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let storage = Storage {
            store: StoreChoice::Embedded,
            blobs: Some(data.join("blobs")),
            data: Some(data),
        };
        let first = Folders::open(&storage).unwrap();
        let refused = Folders::open(&storage).unwrap_err().to_string();
        assert!(refused.starts_with("another process works on"), "{refused}");
        drop(first);
        assert!(Folders::open(&storage).is_ok());
    }
}
