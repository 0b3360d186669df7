//! The Python environment that `tests/setup.sh` makes.

use std::path::PathBuf;

/// Its interpreter.
pub fn python() -> PathBuf {
    let named = std::env::var_os("JUSTONCE_TEST_PYTHON").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
            PathBuf::from,
        );
        target.join("test-python/bin/python")
    })
}
