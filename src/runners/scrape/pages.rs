//! What was learnt of pages, per user and URL: a file each, in a folder of their own below the data folder.
//!
//! It only saves work: a page that is not known, or whose file is damaged, is fetched and parsed as if it were
//! seen for the first time. So nothing is synced, and each replica has its own. The number of pages and their
//! bytes are bounded; those that were not asked for the longest go first.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use url::Url;

use crate::domain::digest::Sha256Digest;
use crate::domain::principal::UserId;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages(Arc<Shelf>);

/// A page as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Where redirects led.
    pub final_url: String,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Of the body, unpacked.
    pub sha256: Sha256Digest,
    /// As it was declared; empty when it was not.
    pub media_type: String,
    pub content: Content,
}

/// What the parser took out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub title: Option<String>,
    pub text: String,
    pub links: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    bounds: Bounds,
    index: Mutex<Index>,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub pages_max: usize,
    pub bytes_max: u64,
    /// Larger ones are not kept.
    pub page_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Index {
    pages: HashMap<String, Entry>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    bytes: u64,
    used_at: SystemTime,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            pages_max: 10_000,
            bytes_max: 256 * 1024 * 1024,
            page_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// Raised when the parser finds more than before, so that earlier content is not taken for today's.
const FORM: &str = "1";

impl Pages {
    /// Makes the folder ready, and clears away what was cut short.
    pub fn open(folder: PathBuf, bounds: Bounds) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut index = Index::default();
        for found in fs::read_dir(&folder)? {
            let found = found?;
            let (name, metadata) = (found.file_name(), found.metadata()?);
            match name.to_str() {
                Some(name) if Sha256Digest::parse_hex(name).is_some() => {
                    let used_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    let bytes = metadata.len();
                    index.put(name.to_owned(), Entry { bytes, used_at });
                }
                _ => fs::remove_file(found.path())?,
            }
        }
        Ok(Pages(Arc::new(Shelf {
            folder,
            bounds,
            index: Mutex::new(index),
        })))
    }

    /// Where files may be made that are deleted soon.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    pub async fn find(&self, user: &UserId, url: &Url) -> Option<Page> {
        let (shelf, name) = (self.0.clone(), name(user, url));
        spawn_blocking(move || shelf.find(&name)).await.ok()?
    }

    /// Failing to keep a page harms nobody.
    pub async fn keep(&self, user: &UserId, url: &Url, page: &Page) {
        let (shelf, name) = (self.0.clone(), name(user, url));
        let Ok(text) = serde_json::to_vec(page) else {
            return;
        };
        if text.len() > shelf.bounds.page_bytes_max {
            return;
        }
        let kept = spawn_blocking(move || shelf.keep(name, &text)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "a page cannot be kept for later");
        }
    }
}

impl Shelf {
    fn find(&self, name: &str) -> Option<Page> {
        let path = self.folder.join(name);
        let text = fs::read(&path).ok()?;
        let now = SystemTime::now();
        if let Ok(file) = fs::File::options().append(true).open(&path) {
            let _ = file.set_modified(now);
        }
        if let Some(entry) = self.index().pages.get_mut(name) {
            entry.used_at = now;
        }
        serde_json::from_slice(&text).ok()
    }

    fn keep(&self, name: String, text: &[u8]) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.folder)?;
        file.write_all(text)?;
        let entry = Entry {
            bytes: text.len() as u64,
            used_at: SystemTime::now(),
        };
        let mut index = self.index();
        file.persist(self.folder.join(&name))?;
        index.put(name, entry);
        while index.bytes > self.bounds.bytes_max || index.pages.len() > self.bounds.pages_max {
            let Some(oldest) = index.take_oldest() else {
                break;
            };
            fs::remove_file(self.folder.join(oldest))?;
        }
        Ok(())
    }

    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn put(&mut self, name: String, entry: Entry) {
        self.bytes += entry.bytes;
        if let Some(before) = self.pages.insert(name, entry) {
            self.bytes -= before.bytes;
        }
    }

    fn take_oldest(&mut self) -> Option<String> {
        let oldest = self.pages.iter().min_by_key(|(_, entry)| entry.used_at);
        let name = oldest.map(|(name, _)| name.clone())?;
        let entry = self.pages.remove(&name)?;
        self.bytes -= entry.bytes;
        Some(name)
    }
}

/// Users know nothing of each other's pages. Neither holds a line feed.
fn name(user: &UserId, url: &Url) -> String {
    Sha256Digest::of(format!("{FORM}\n{user}\n{url}").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page {
            final_url: "http://a.example/".into(),
            etag: Some("\"1\"".into()),
            last_modified: None,
            sha256: Sha256Digest::of(text.as_bytes()),
            media_type: "text/plain".into(),
            content: Content {
                text: text.into(),
                ..Content::default()
            },
        }
    }

    fn url(path: usize) -> Url {
        Url::parse(&format!("http://a.example/{path}")).unwrap()
    }

    #[tokio::test]
    async fn pages_are_found_again_by_their_user_only_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Pages::open(folder.path().into(), Bounds::default()).unwrap();
        let (one, other) = (
            UserId::parse("one").unwrap(),
            UserId::parse("other").unwrap(),
        );
        open().keep(&one, &url(1), &page("x")).await;
        fs::write(folder.path().join("left-over"), "x").unwrap();
        let pages = open();
        assert_eq!(pages.find(&one, &url(1)).await, Some(page("x")));
        assert_eq!(pages.find(&one, &url(2)).await, None);
        assert_eq!(pages.find(&other, &url(1)).await, None);
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        fs::write(files[0].as_ref().unwrap().path(), "{\"cut").unwrap();
        assert_eq!(pages.find(&one, &url(1)).await, None);
    }

    #[tokio::test]
    async fn the_bounds_hold_and_the_least_used_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            pages_max: 3,
            bytes_max: 4000,
            page_bytes_max: 3000,
        };
        let pages = Pages::open(folder.path().into(), bounds).unwrap();
        let user = UserId::anonymous();
        for number in 0..3 {
            pages.keep(&user, &url(number), &page("x")).await;
        }
        assert!(pages.find(&user, &url(0)).await.is_some());
        pages.keep(&user, &url(3), &page("x")).await;
        assert!(pages.find(&user, &url(1)).await.is_none());
        assert!(pages.find(&user, &url(0)).await.is_some());
        pages.keep(&user, &url(4), &page(&"x".repeat(3000))).await;
        assert!(pages.find(&user, &url(4)).await.is_none());
        for number in 5..8 {
            pages
                .keep(&user, &url(number), &page(&"x".repeat(2500)))
                .await;
        }
        let sizes = fs::read_dir(folder.path()).unwrap();
        let total: u64 = sizes
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 4000, "{total}");
        assert!(pages.find(&user, &url(7)).await.is_some());
    }
}
