//! Bytes as files in one folder of this machine.
//!
//! `tmp/` holds what is on its way in; `<2 hex>/<sha256>-<generation>` what is stored. A name appears
//! by a rename after the bytes are on disk, so that every stored file is whole.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::{Blob, BlobError, Blobs, Incoming};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::{BlobName, Generation};

/// Bytes that are written and read at a time. An upload holds two of these at most.
const CHUNK_BYTES: usize = 512 * 1024;

#[derive(Clone, Debug)]
pub struct LocalBlobs(Arc<Place>);

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    /// Whether bytes must survive power loss before they are named.
    fsync: bool,
}

impl LocalBlobs {
    /// Makes the folder ready, and clears away what an earlier process left half received.
    pub fn open(folder: PathBuf, fsync: bool) -> io::Result<Self> {
        let place = Place { folder, fsync };
        fs::create_dir_all(place.tmp())?;
        for leftover in fs::read_dir(place.tmp())? {
            fs::remove_file(leftover?.path())?;
        }
        // All at once, so that no publication has to wonder whether its folder is on disk yet.
        for first in 0..=u8::MAX {
            fs::create_dir_all(place.folder.join(format!("{first:02x}")))?;
        }
        place.sync_folder(&place.folder)?;
        Ok(LocalBlobs(Arc::new(place)))
    }
}

#[async_trait]
impl Blobs for LocalBlobs {
    async fn receive(&self) -> Result<Box<dyn Incoming>, BlobError> {
        Ok(Box::new(LocalIncoming {
            place: self.0.clone(),
            hasher: Sha256::new(),
            size: 0,
            buffer: Vec::new(),
            staged: Staged::Nothing,
        }))
    }

    async fn open(&self, name: &BlobName) -> Result<Blob, BlobError> {
        let mut file = tokio::fs::File::open(self.0.path(name)).await?;
        let size = file.metadata().await?.len();
        file.set_max_buf_size(CHUNK_BYTES);
        Ok(Blob {
            size,
            reader: Box::pin(file),
        })
    }

    async fn local_path(&self, name: &BlobName) -> Result<PathBuf, BlobError> {
        let path = self.0.path(name);
        tokio::fs::metadata(&path).await?;
        Ok(path)
    }

    async fn delete(&self, name: &BlobName) -> Result<(), BlobError> {
        match tokio::fs::remove_file(self.0.path(name)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn list_older(
        &self,
        age: Duration,
        from: Option<&BlobName>,
        max: usize,
    ) -> Result<Vec<BlobName>, BlobError> {
        let (place, from) = (self.0.clone(), from.cloned());
        let listed = spawn_blocking(move || place.list_older(age, from.as_ref(), max));
        Ok(listed.await.map_err(died)??)
    }

    async fn ping(&self) -> Result<(), BlobError> {
        let place = self.0.clone();
        let written = spawn_blocking(move || NamedTempFile::new_in(place.tmp()).map(drop));
        Ok(written.await.map_err(died)??)
    }
}

impl Place {
    fn tmp(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    fn folder_of(&self, sha256: &Sha256Digest) -> PathBuf {
        folder_of(&self.folder, sha256)
    }

    fn path(&self, name: &BlobName) -> PathBuf {
        place_of(&self.folder, name)
    }

    fn append(&self, file: Option<NamedTempFile>, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut file = match file {
            Some(file) => file,
            None => NamedTempFile::new_in(self.tmp())?,
        };
        file.write_all(bytes)?;
        Ok(file)
    }

    /// File first, then its name, then the folder that holds the name: in this order power loss
    /// leaves all or nothing.
    fn name(&self, file: NamedTempFile, name: &BlobName) -> io::Result<()> {
        // Its age counts from now: the sweep for orphans must not take it before its record is made,
        // however long the upload took.
        file.as_file().set_modified(SystemTime::now())?;
        if self.fsync {
            file.as_file().sync_all()?;
        }
        file.persist(self.path(name))?;
        self.sync_folder(&self.folder_of(&name.sha256))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match self.fsync {
            true => fs::File::open(folder)?.sync_all(),
            false => Ok(()),
        }
    }

    fn list_older(
        &self,
        age: Duration,
        from: Option<&BlobName>,
        max: usize,
    ) -> io::Result<Vec<BlobName>> {
        let first = from.map_or(0, |name| name.sha256.as_bytes()[0]);
        let mut listed = Vec::new();
        for folder in first..=u8::MAX {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.folder.join(format!("{folder:02x}")))? {
                let entry = entry?;
                let name = entry.file_name().to_str().and_then(BlobName::parse);
                let Some(name) = name.filter(|name| from.is_none_or(|from| name > from)) else {
                    continue;
                };
                if is_older(&entry, age)? {
                    names.push(name);
                }
            }
            names.sort_unstable();
            listed.extend(names);
            if listed.len() >= max {
                break;
            }
        }
        listed.truncate(max);
        Ok(listed)
    }
}

/// Where a copy lies in the folder of all copies.
pub fn place_of(folder: &Path, name: &BlobName) -> PathBuf {
    folder_of(folder, &name.sha256).join(name.to_string())
}

fn folder_of(folder: &Path, sha256: &Sha256Digest) -> PathBuf {
    folder.join(format!("{:02x}", sha256.as_bytes()[0]))
}

/// A file that was deleted meanwhile, or that a clock puts into the future, is not.
fn is_older(entry: &fs::DirEntry, age: Duration) -> io::Result<bool> {
    let written_at = match entry.metadata() {
        Ok(metadata) => metadata.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let since = SystemTime::now().duration_since(written_at);
    Ok(since.is_ok_and(|since| since > age))
}

/// Bytes are hashed as they come, while a thread of its own writes those before them.
struct LocalIncoming {
    place: Arc<Place>,
    hasher: Sha256,
    size: u64,
    /// Hashed and not yet handed to the writer.
    buffer: Vec<u8>,
    staged: Staged,
}

/// Where the bytes are. A `NamedTempFile` deletes itself when dropped, by the writer too if the upload
/// is given up while it writes.
enum Staged {
    /// No file yet: small ones are made and named in one go.
    Nothing,
    /// The file, and the writer's buffer to be used again.
    Writing(JoinHandle<(io::Result<NamedTempFile>, Vec<u8>)>),
    /// A write failed: what follows is refused too.
    Broken,
}

#[async_trait]
impl Incoming for LocalIncoming {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let room = CHUNK_BYTES - self.buffer.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.buffer.extend_from_slice(now);
            rest = later;
            if self.buffer.len() == CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn digest(&self) -> (Sha256Digest, u64) {
        let digest = Sha256Digest::from_bytes(self.hasher.clone().finalize().into());
        (digest, self.size)
    }

    async fn publish(mut self: Box<Self>) -> Result<BlobName, BlobError> {
        let name = BlobName {
            sha256: self.digest().0,
            generation: Generation::random(),
        };
        let (file, _) = self.written().await?;
        let (place, rest) = (self.place.clone(), std::mem::take(&mut self.buffer));
        let published = spawn_blocking(move || {
            let file = place.append(file, &rest)?;
            place.name(file, &name)?;
            Ok::<_, io::Error>(name)
        });
        Ok(published.await.map_err(died)??)
    }
}

impl LocalIncoming {
    async fn flush(&mut self) -> Result<(), BlobError> {
        let (file, mut spare) = self.written().await?;
        spare.clear();
        spare.reserve_exact(CHUNK_BYTES);
        let full = std::mem::replace(&mut self.buffer, spare);
        let place = self.place.clone();
        self.staged = Staged::Writing(spawn_blocking(move || (place.append(file, &full), full)));
        Ok(())
    }

    /// Waits for the writer.
    async fn written(&mut self) -> Result<(Option<NamedTempFile>, Vec<u8>), BlobError> {
        match std::mem::replace(&mut self.staged, Staged::Broken) {
            Staged::Nothing => Ok((None, Vec::new())),
            Staged::Writing(writer) => {
                let (file, buffer) = writer.await.map_err(died)?;
                Ok((Some(file?), buffer))
            }
            Staged::Broken => Err(BlobError::Failed("an earlier write failed".into())),
        }
    }
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => BlobError::Missing,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::Full,
            _ => BlobError::Failed(error.to_string()),
        }
    }
}

fn died(error: JoinError) -> BlobError {
    BlobError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn files_below(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| match entry.file_type().unwrap().is_dir() {
                true => files_below(&entry.path()),
                false => 1,
            })
            .sum()
    }

    async fn receive(blobs: &LocalBlobs, bytes: &[u8]) -> Box<dyn Incoming> {
        let mut incoming = blobs.receive().await.unwrap();
        for piece in bytes.chunks(100_000) {
            incoming.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        incoming
    }

    async fn read(blobs: &LocalBlobs, name: &BlobName) -> Vec<u8> {
        let mut blob = blobs.open(name).await.unwrap();
        let mut bytes = Vec::new();
        blob.reader.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(blob.size, bytes.len() as u64);
        bytes
    }

    #[tokio::test]
    async fn what_is_published_reads_back_and_can_be_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(folder.path().into(), true).unwrap();
        let large: Vec<u8> = (0..3_000_001_u32).map(|i| i as u8).collect();
        for bytes in [&b""[..], b"small", &large[..CHUNK_BYTES], &large] {
            let incoming = receive(&blobs, bytes).await;
            let expected = (Sha256Digest::of(bytes), bytes.len() as u64);
            assert_eq!(incoming.digest(), expected);
            let name = incoming.publish().await.unwrap();
            assert_eq!(name.sha256, expected.0);
            assert_eq!(read(&blobs, &name).await, bytes);
            assert!(blobs.local_path(&name).await.unwrap().is_file());
            blobs.delete(&name).await.unwrap();
            blobs.delete(&name).await.unwrap();
            assert!(matches!(blobs.open(&name).await, Err(BlobError::Missing)));
        }
        assert_eq!(files_below(folder.path()), 0);
        blobs.ping().await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_upload_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(folder.path().into(), false).unwrap();
        drop(receive(&blobs, &vec![7; 2 * CHUNK_BYTES + 1]).await);
        // The writer may be at work still, and deletes the file when it is done.
        for _ in 0..500 {
            if files_below(folder.path()) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a temporary file was left");
    }

    #[test]
    fn leftovers_are_cleared_when_the_folder_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        LocalBlobs::open(folder.path().into(), false).unwrap();
        fs::write(folder.path().join("tmp/.tmpabc"), "half").unwrap();
        LocalBlobs::open(folder.path().into(), false).unwrap();
        assert_eq!(files_below(folder.path()), 0);
    }

    #[tokio::test]
    async fn old_copies_are_listed_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(folder.path().into(), false).unwrap();
        let mut names = Vec::new();
        for byte in 0..5 {
            let incoming = receive(&blobs, &[byte]).await;
            names.push(incoming.publish().await.unwrap());
        }
        names.sort();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let age = Duration::from_millis(1);
        let first = blobs.list_older(age, None, 2).await.unwrap();
        assert_eq!(first, names[..2]);
        let rest = blobs.list_older(age, Some(&names[1]), 10).await.unwrap();
        assert_eq!(rest, names[2..]);
        let hour = Duration::from_secs(3600);
        assert!(blobs.list_older(hour, None, 10).await.unwrap().is_empty());
    }
}
