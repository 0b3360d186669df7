//! A disk that is told what a program does: what it certainly holds, and what it may hold beside that if the power
//! fails now.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::log::Entry;

/// What is not synced is dropped, kept or torn in pieces of so many bytes.
pub const SECTOR_BYTES: usize = 512;

pub type Number = usize;

#[derive(Default)]
pub struct Disk<'a> {
    pub files: Vec<Content<'a>>,
    /// By path.
    pub names: BTreeMap<String, Name>,
    of_inode: HashMap<u64, Number>,
    /// When the syncs under way have begun.
    syncs: HashMap<u64, usize>,
    /// Entries applied so far.
    pub now: usize,
}

/// The bytes of a file, whatever its name.
#[derive(Default)]
pub struct Content<'a> {
    pub synced: Vec<u8>,
    /// In order.
    pub pending: Vec<(usize, Change<'a>)>,
}

#[derive(Clone, Copy)]
pub enum Change<'a> {
    Write { at: usize, bytes: &'a [u8] },
    Length(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    File(Number),
    Folder,
}

/// What a path names.
#[derive(Default)]
pub struct Name {
    pub synced: Option<Node>,
    pub pending: Vec<NameChange>,
}

pub struct NameChange {
    pub when: usize,
    pub node: Option<Node>,
    /// Where a file went by a rename: it is never gone from both places.
    pub moved_to: Option<String>,
}

impl<'a> Disk<'a> {
    /// A disk that holds a folder, every byte of it synced.
    pub fn holding(folder: &Path) -> Disk<'a> {
        let mut disk = Disk::default();
        disk.take(folder, "");
        disk
    }

    fn take(&mut self, folder: &Path, below: &str) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = match below {
                "" => name,
                below => format!("{below}/{name}"),
            };
            let metadata = entry.metadata().unwrap();
            let node = if metadata.is_dir() {
                self.take(&entry.path(), &path);
                Node::Folder
            } else {
                let synced = std::fs::read(entry.path()).unwrap();
                Node::File(self.file(metadata.ino(), synced))
            };
            let synced = Some(node);
            let pending = Vec::new();
            self.names.insert(path, Name { synced, pending });
        }
    }

    fn file(&mut self, inode: u64, synced: Vec<u8>) -> Number {
        let number = self.files.len();
        self.files.push(Content {
            synced,
            pending: Vec::new(),
        });
        self.of_inode.insert(inode, number);
        number
    }

    /// `luck` decides what remains of writes whose sync failed: no later sync brings them back.
    pub fn apply(&mut self, entry: &Entry<'a>, luck: &mut fastrand::Rng) {
        self.now += 1;
        match *entry {
            Entry::Create { inode, path } => {
                let number = self.file(inode, Vec::new());
                self.name(path, Some(Node::File(number)), None);
            }
            Entry::Write { inode, at, bytes } => {
                let at = usize::try_from(at).unwrap();
                self.change(inode, Change::Write { at, bytes });
            }
            Entry::Truncate { inode, length } => {
                self.change(inode, Change::Length(usize::try_from(length).unwrap()));
            }
            Entry::SyncBegin { number } => {
                self.syncs.insert(number, self.now);
            }
            Entry::SyncEnd { inode, number } => {
                let began = self.syncs.remove(&number).unwrap();
                let content = self.content(inode);
                let synced = content.pending.partition_point(|(when, _)| *when < began);
                for (_, change) in content.pending.drain(..synced) {
                    change.apply(&mut content.synced);
                }
            }
            Entry::SyncFailed { inode } => {
                let content = self.content(inode);
                for (_, change) in content.pending.drain(..) {
                    change.apply_partly(&mut content.synced, 0.5, luck);
                }
            }
            Entry::MakeFolder { path } => self.name(path, Some(Node::Folder), None),
            Entry::Rename { from, to } => {
                let node = self.names[from].current();
                self.name(to, node, None);
                self.name(from, None, Some(to.to_owned()));
            }
            Entry::Unlink { path } => self.name(path, None, None),
            Entry::FolderSyncEnd { path, number } => {
                let began = self.syncs.remove(&number).unwrap();
                self.sync_names(path, began);
            }
            Entry::Alarm { what } => panic!("the shim cannot follow: {what}"),
            Entry::Note(_) => {}
        }
    }

    fn content(&mut self, inode: u64) -> &mut Content<'a> {
        &mut self.files[self.of_inode[&inode]]
    }

    fn change(&mut self, inode: u64, change: Change<'a>) {
        let now = self.now;
        self.content(inode).pending.push((now, change));
    }

    fn name(&mut self, path: &str, node: Option<Node>, moved_to: Option<String>) {
        let change = NameChange {
            when: self.now,
            node,
            moved_to,
        };
        let name = self.names.entry(path.to_owned()).or_default();
        name.pending.push(change);
    }

    fn sync_names(&mut self, folder: &str, began: usize) {
        let mut moved = Vec::new();
        for (path, name) in &mut self.names {
            if parent(path) == folder {
                moved.extend(name.sync(began));
            }
        }
        for (path, when) in moved {
            if let Some(name) = self.names.get_mut(&path) {
                name.sync(when + 1);
            }
        }
        self.names
            .retain(|_, name| name.synced.is_some() || !name.pending.is_empty());
    }
}

impl Name {
    fn current(&self) -> Option<Node> {
        self.pending
            .last()
            .map_or(self.synced, |change| change.node)
    }

    /// Gives where files of this name went, and when.
    fn sync(&mut self, before: usize) -> Vec<(String, usize)> {
        let synced = self.pending.partition_point(|change| change.when < before);
        let mut moved = Vec::new();
        for change in self.pending.drain(..synced) {
            self.synced = change.node;
            moved.extend(change.moved_to.map(|to| (to, change.when)));
        }
        moved
    }
}

impl<'a> Change<'a> {
    /// How much is written.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Write { bytes, .. } => bytes.len(),
            Change::Length(_) => 0,
        }
    }

    /// The first bytes of it only.
    pub fn up_to(self, most: usize) -> Change<'a> {
        match self {
            Change::Write { at, bytes } => Change::Write {
                at,
                bytes: &bytes[..most],
            },
            Change::Length(length) => Change::Length(length),
        }
    }

    pub fn apply(self, content: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[at..end].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(length, 0),
        }
    }

    /// Each sector is kept with this probability; most often all of them are kept or lost together.
    pub fn apply_partly(self, content: &mut Vec<u8>, kept: f64, luck: &mut fastrand::Rng) {
        let is_torn = luck.u8(..4) == 0;
        match self {
            Change::Write { at, bytes } if is_torn => {
                let mut from = at;
                while from < at + bytes.len() {
                    let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(at + bytes.len());
                    if luck.f64() < kept {
                        let bytes = &bytes[from - at..to - at];
                        Change::Write { at: from, bytes }.apply(content);
                    }
                    from = to;
                }
            }
            whole => {
                if luck.f64() < kept {
                    whole.apply(content);
                }
            }
        }
    }
}

pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
