//! Where tests, benches and proofs write: on a disk that keeps what was synced, or nowhere. In
//! memory an fdatasync does nothing, and on an overlay nobody knows what it does.
#![forbid(unsafe_code)]
// tidy: limits because it holds a list of names, and nothing that grows while it runs

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Names a folder to write to in place of the usual one.
pub const FOLDER: &str = "TRIBUTARY_TEST_DIR";

/// File systems that are refused, by their magic numbers (linux/magic.h).
const REFUSED: [(u32, &str); 3] = [
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay"),
];

/// The folder to write to: `usual`, or what the environment names; it is made where it is missing.
///
/// # Errors
/// When it can't be made, or proves nothing: why, and what to do.
pub fn folder(usual: &Path) -> Result<PathBuf, String> {
    let named = std::env::var_os(FOLDER).filter(|named| !named.is_empty());
    let dir = named.map_or_else(|| usual.to_owned(), PathBuf::from);
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    check(&dir)?;
    Ok(dir)
}

/// A folder below that one, which goes when it is dropped.
///
/// # Errors
/// When it can't be made, or proves nothing: why, and what to do.
pub fn scratch(usual: &Path, prefix: &str) -> Result<TempDir, String> {
    let dir = folder(usual)?;
    let dir = dir.canonicalize().unwrap_or(dir);
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(&dir);
    made.map_err(|error| format!("a folder in {}: {error}", dir.display()))
}

/// The same, below where cargo builds.
///
/// # Errors
/// When it can't be made, or proves nothing: why, and what to do.
pub fn below_target(prefix: &str) -> Result<TempDir, String> {
    scratch(&target(), prefix)
}

/// Where cargo builds, seen from the workspace.
pub fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|named| !named.is_empty());
    named.map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// Makes sure that an fdatasync below `dir` means something.
///
/// # Errors
/// When it does not, or nobody can tell: why, and what to do.
pub fn check(dir: &Path) -> Result<(), String> {
    let found = rustix::fs::statfs(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let refused = REFUSED
        .iter()
        .find(|(magic, _)| u32::try_from(found.f_type).is_ok_and(|found| found == *magic));
    match refused {
        None => Ok(()),
        Some((_, name)) => Err(format!(
            "{} is on {name}, where an fdatasync proves nothing: name a folder on a disk with \
             {FOLDER}, or all of target with CARGO_TARGET_DIR",
            dir.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_refused_by_its_name_and_what_is_not_there_is_said() {
        let is_tmpfs = |mount: &str| {
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            mounts.lines().any(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                words.get(1..3) == Some(&[mount, "tmpfs"])
            })
        };
        // What every Linux has in memory.
        let found = ["/dev/shm", "/dev", "/run"]
            .into_iter()
            .find(|it| is_tmpfs(it));
        let memory = found.expect("a tmpfs");
        let why = check(Path::new(memory)).unwrap_err();
        assert!(why.contains("tmpfs") && why.contains(FOLDER), "{why}");
        let dir = tempfile::tempdir().unwrap();
        assert!(check(&dir.path().join("nothing")).is_err());
    }
}
