//! The shims of `tests/shim`, compiled: what is loaded into an agent before everything else.

use crate::programs::scratch;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// One of them, in a folder of its own that goes with it.
#[derive(Debug)]
pub struct Shim {
    /// The folder.
    pub dir: TempDir,
    /// The library in it, for `LD_PRELOAD`.
    pub library: PathBuf,
}

impl Shim {
    /// Compiles `tests/shim/<name>.c`.
    ///
    /// # Panics
    /// When it can't be compiled.
    pub fn compile(name: &str) -> Self {
        let dir = scratch("shim");
        let library = dir.path().join(format!("{name}.so"));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim");
        let compiled = Command::new("cc")
            .args([
                "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o",
            ])
            .arg(&library)
            .arg(sources.join(format!("{name}.c")))
            .arg("-ldl")
            .output()
            .expect("cc, the C compiler that building needs anyway");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "cc: {said}");
        Self { dir, library }
    }
}
