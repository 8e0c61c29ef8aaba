//! What a database's directory says of damage that a commit met: an open that reads no page would
//! not see it, and the next commit would break on it again.

use super::StateDbError;
use std::fs::File;
use std::path::{Path, PathBuf};

impl StateDbError {
    /// Whether sled broke on what it found, and not on the disk itself or for want of room.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Unusable { .. } => true,
            Self::Sled { source, .. } => !matches!(source, sled::Error::Io(_)),
            _ => false,
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("damaged")
}

/// Has the next open set the database aside. Best effort: a later commit may say so again.
pub(super) fn mark(dir: &Path) {
    let made = File::create(path(dir)).and_then(|file| file.sync_all());
    let synced = made.and_then(|()| File::open(dir)?.sync_all());
    if let Err(error) = synced {
        let dir = dir.display();
        tracing::warn!(%dir, %error, "that the state database is damaged can't be noted");
    }
}

/// Whether a commit broke on it.
pub(super) fn is_marked(dir: &Path) -> bool {
    path(dir).exists()
}
