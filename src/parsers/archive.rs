use std::io::{self, Read, Seek};

use zip::ZipArchive;
use zip::result::ZipError;

use super::failure::{Code, Failure};

/// The most entries that an archive may have.
const ENTRIES_MAX: usize = 2_000;
/// The most that all entries together may unpack to, in bytes.
const UNPACKED_MAX_BYTES: u64 = 512 * 1024 * 1024;
/// The most that an archive may unpack to, in times its own size.
const RATIO_MAX: u64 = 200;
/// Where a document type declaration is looked for, in bytes from the start of an entry.
const PROLOGUE_BYTES: u64 = 64 * 1024;

/// A zip archive whose entries are counted while they unpack; declared sizes are never believed.
pub struct Archive<R> {
    zip: ZipArchive<R>,
    budget: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Opens an archive of `size` bytes.
    pub fn open(reader: R, size: u64) -> Result<Self, Failure> {
        let zip = ZipArchive::new(reader).map_err(|error| refusal(&error))?;
        if zip.len() > ENTRIES_MAX {
            return Err(limit(format!(
                "the archive has more than {ENTRIES_MAX} entries"
            )));
        }
        let budget = UNPACKED_MAX_BYTES.min(size.saturating_mul(RATIO_MAX));
        Ok(Self { zip, budget })
    }

    pub fn contains(&self, name: &str) -> bool {
        self.zip.index_for_name(name).is_some()
    }

    /// A reader over the named entry, or `None` when there is no such entry.
    pub fn entry(&mut self, name: &str) -> Result<Option<impl Read + use<'_, R>>, Failure> {
        match self.zip.by_name(name) {
            Ok(entry) => Ok(Some(Metered {
                entry,
                budget: &mut self.budget,
            })),
            Err(ZipError::FileNotFound) => Ok(None),
            Err(error) => Err(refusal(&error)),
        }
    }

    /// The start of the named entry, at most `max` bytes of it; empty when there is no such entry.
    pub fn start_of(&mut self, name: &str, max: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        if let Some(entry) = self.entry(name)? {
            entry.take(max).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }

    /// Unpacks every entry into nothing, so that a reader without bounds of its own may be let in afterwards. Refuses
    /// document type declarations too, since such a reader may pass over them.
    pub fn verify(&mut self) -> Result<(), Failure> {
        for index in 0..self.zip.len() {
            let entry = self.zip.by_index(index).map_err(|error| refusal(&error))?;
            let is_xml = entry
                .name()
                .is_ok_and(|name| name.ends_with(".xml") || name.ends_with(".rels"));
            let mut entry = Metered {
                entry,
                budget: &mut self.budget,
            };
            if is_xml {
                let mut prologue = Vec::new();
                entry
                    .by_ref()
                    .take(PROLOGUE_BYTES)
                    .read_to_end(&mut prologue)?;
                if prologue.windows(9).any(|window| window == b"<!DOCTYPE") {
                    return Err(Failure::unparseable(
                        "the archive's XML has a document type declaration",
                    ));
                }
            }
            io::copy(&mut entry, &mut io::sink())?;
        }
        Ok(())
    }
}

/// Takes what it reads off the archive's budget.
struct Metered<'a, E> {
    entry: E,
    budget: &'a mut u64,
}

impl<E: Read> Read for Metered<'_, E> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.entry.read(buffer)?;
        *self.budget = self
            .budget
            .checked_sub(count as u64)
            .ok_or_else(|| limit("the archive unpacks to too much".to_owned()))?;
        Ok(count)
    }
}

fn limit(message: String) -> Failure {
    Failure::new(Code::ArchiveLimit, message)
}

fn refusal(error: &ZipError) -> Failure {
    match error {
        ZipError::UnsupportedArchive(text) if *text == ZipError::PASSWORD_REQUIRED => {
            Failure::new(Code::Encrypted, "the archive is encrypted")
        }
        ZipError::InvalidPassword => Failure::new(Code::Encrypted, "the archive is encrypted"),
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => {
            Failure::unsupported("the archive uses a compression that is not supported")
        }
        _ => Failure::unparseable("the archive is damaged"),
    }
}
