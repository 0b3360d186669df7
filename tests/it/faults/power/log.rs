//! The log of the shim: what a program did to its files, in order, with the notes of the clients in between.

use serde::{Deserialize, Serialize};

/// One entry. Paths are below the root of the shim.
#[derive(Debug)]
pub enum Entry<'a> {
    Create {
        inode: u64,
        path: &'a str,
    },
    Write {
        inode: u64,
        at: u64,
        bytes: &'a [u8],
    },
    Truncate {
        inode: u64,
        length: u64,
    },
    SyncEnd {
        inode: u64,
        number: u64,
    },
    SyncFailed {
        inode: u64,
    },
    MakeFolder {
        path: &'a str,
    },
    Rename {
        from: &'a str,
        to: &'a str,
    },
    Unlink {
        path: &'a str,
    },
    /// Of a file or a folder.
    SyncBegin {
        number: u64,
    },
    FolderSyncEnd {
        path: &'a str,
        number: u64,
    },
    /// What the shim cannot follow.
    Alarm {
        what: &'a str,
    },
    Note(Note),
}

/// What a client knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Note {
    /// This will be sent now.
    Sent { key: String, content: usize },
    /// The submission was acknowledged.
    Acknowledged { key: String, id: String },
    /// The task was seen at its end.
    Ended { id: String, task: serde_json::Value },
    /// A file was acknowledged.
    Kept { user: String, sha256: String },
}

const HEADER_BYTES: usize = 32;
const NOTE: u32 = 100;

/// As it is appended to the log, in one write.
pub fn noted(note: &Note) -> Vec<u8> {
    let text = serde_json::to_vec(note).unwrap();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + text.len());
    bytes.extend(NOTE.to_le_bytes());
    bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(text);
    bytes
}

/// All entries of a log.
pub fn read(log: &[u8]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut rest = log;
    while !rest.is_empty() {
        let (header, after) = rest.split_at(HEADER_BYTES);
        let short = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
        let (first, after) = after.split_at(short(4) as usize);
        let (second, after) = after.split_at(short(8) as usize);
        rest = after;
        entries.push(entry(short(0), long(16), long(24), first, second));
    }
    entries
}

fn entry<'a>(kind: u32, inode: u64, at: u64, first: &'a [u8], second: &'a [u8]) -> Entry<'a> {
    let path = |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap();
    match kind {
        1 => Entry::Create {
            inode,
            path: path(first),
        },
        2 => Entry::Write {
            inode,
            at,
            bytes: first,
        },
        3 => Entry::Truncate { inode, length: at },
        4 | 11 => Entry::SyncBegin { number: at },
        5 => Entry::SyncEnd { inode, number: at },
        6 => Entry::SyncFailed { inode },
        7 => Entry::MakeFolder { path: path(first) },
        8 => Entry::Rename {
            from: path(first),
            to: path(second),
        },
        9 | 10 => Entry::Unlink { path: path(first) },
        12 => Entry::FolderSyncEnd {
            path: path(first),
            number: at,
        },
        13 => Entry::Alarm { what: path(first) },
        NOTE => Entry::Note(serde_json::from_slice(first).unwrap()),
        other => panic!("an entry of the kind {other}"),
    }
}
