use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::failure::{Code, Failure};

/// How much of a file is looked at to tell what it is, in bytes.
const HEAD_BYTES: u64 = 64 * 1024;

/// An opened file that is not empty, with its first bytes.
pub struct Input {
    file: File,
    pub head: Vec<u8>,
    /// Measured, not declared; in bytes.
    pub size: u64,
}

impl Input {
    pub fn new(mut file: File) -> Result<Self, Failure> {
        let size = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        if head.is_empty() {
            return Err(Failure::unparseable("the file is empty"));
        }
        Ok(Self { file, head, size })
    }

    /// The file from its start.
    pub fn rewound(&mut self) -> Result<&mut File, Failure> {
        self.file.rewind()?;
        Ok(&mut self.file)
    }

    /// The file itself, from its start.
    pub fn into_file(mut self) -> Result<File, Failure> {
        self.file.rewind()?;
        Ok(self.file)
    }

    /// The whole file in memory, at most `max` bytes.
    pub fn into_bytes(mut self, max: u64) -> Result<Vec<u8>, Failure> {
        let too_large = || {
            Failure::new(
                Code::MemoryLimit,
                format!("the file is larger than {} MiB", max >> 20),
            )
        };
        if self.size > max {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.size).unwrap_or_default());
        self.rewound()?.take(max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            return Err(too_large());
        }
        Ok(bytes)
    }
}
