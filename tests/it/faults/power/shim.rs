//! The shim below the real binary: built once, and told what to do.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::log::{Note, noted};

/// The library, for `LD_PRELOAD`.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/power/shim.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&path, Path::new(source)]);
        let compiled = compiler.output().unwrap();
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "cc: {said}");
        (folder, path)
    });
    path
}

/// One log, and the lies that are to be told.
pub struct Shim {
    root: PathBuf,
    folder: TempDir,
    notes: File,
    control: File,
}

impl Shim {
    /// For programs that keep their files below this folder.
    pub fn over(root: &Path) -> Shim {
        let folder = TempDir::new().unwrap();
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            let path = folder.path().join(name);
            options.append(true).create(true).open(path).unwrap()
        };
        let notes = open("log");
        drop(open("control"));
        let control = OpenOptions::new()
            .write(true)
            .read(true)
            .open(folder.path().join("control"))
            .unwrap();
        control.set_len(32).unwrap();
        Shim {
            root: root.canonicalize().unwrap(),
            folder,
            notes,
            control,
        }
    }

    /// What the program's environment needs.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(library())),
            ("SHIM_ROOT", text(&self.root)),
            ("SHIM_LOG", text(&self.folder.path().join("log"))),
            ("SHIM_CONTROL", text(&self.folder.path().join("control"))),
        ]
    }

    /// Puts a note behind everything that has been logged.
    pub fn note(&self, note: &Note) {
        (&self.notes).write_all(&noted(note)).unwrap();
    }

    pub fn log(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("log")).unwrap()
    }

    /// From now on.
    pub fn tell(&self, lie: Lie, value: i64) {
        let at = 8 * lie as u64;
        self.control.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }

    /// Writes and syncs that have failed on purpose.
    pub fn told_lies(&self) -> i64 {
        const AT: u64 = 24;
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, AT).unwrap();
        i64::from_ne_bytes(bytes)
    }
}

/// What the shim can be told, in the order of its control file; 0 is the truth.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    /// How far the clock on the wall is ahead.
    ClockShiftNs,
    /// Of so many syncs of files, the last fails.
    FailedSync,
    /// For so many bytes, less one, there is room still.
    RoomInBytes,
}
