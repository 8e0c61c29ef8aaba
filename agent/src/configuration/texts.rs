//! The texts of decoding rules: `<dir>/<BLAKE3, 64 hex>.toml`, each written once, verified whenever
//! it is read. Files only; which are needed is not decided here.

use crate::decode::{Rules, RulesHash};
use crate::limits::CONFIGURATION_BYTES_MAX;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::warn;
use tributary_journal::Disk;

/// Why rules can't be kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "the decoding rules can't be kept as {}: {source}; messages are taken once they can, so that \
     each is read by the rules it came under", path.display()
)]
pub struct KeepError {
    path: PathBuf,
    source: io::Error,
}

/// Why rules can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file is not there, or can't be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it was.
    #[error("{}: damaged: its content has another hash than its name", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The text is whole and means nothing to this version.
    #[error("{}: not understood: {reason}; was a newer version here?", path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong.
        reason: String,
    },
}

/// The texts that are kept.
#[derive(Clone)]
pub struct Texts {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Texts {
    /// Opens the texts in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, KeepError> {
        disk.create_dir_all(dir).map_err(|source| KeepError {
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
        })
    }

    fn path(&self, hash: RulesHash) -> PathBuf {
        self.dir.join(format!("{hash}.toml"))
    }

    /// Keeps the text of `rules`; durable on return. Needs no room when it is there already. The
    /// rules that always hold need no text.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep(&self, rules: &Rules) -> Result<(), KeepError> {
        if rules.is_empty() {
            return Ok(());
        }
        let path = self.path(rules.hash());
        let kept = match self.read(&path) {
            Ok(text) if text == rules.text() => self.disk.sync_dir(&self.dir),
            _ => self.write(&path, rules.text()),
        };
        kept.map_err(|source| KeepError { path, source })
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let bytes = text.as_bytes();
        if bytes.len() > CONFIGURATION_BYTES_MAX {
            return Err(io::Error::other(format!(
                "over {CONFIGURATION_BYTES_MAX} bytes"
            )));
        }
        let new = path.with_extension("new");
        // What an interrupted write left.
        match self.disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&new, bytes.len() as u64)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        self.disk.rename(&new, path)?;
        self.disk.sync_dir(&self.dir)
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let file = self.disk.open(path)?;
        let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        if length > CONFIGURATION_BYTES_MAX {
            return Err(io::Error::other(format!(
                "over {CONFIGURATION_BYTES_MAX} bytes"
            )));
        }
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The rules with this hash.
    ///
    /// # Errors
    /// `TextError`: nobody knows what they were.
    pub fn load(&self, hash: RulesHash) -> Result<Arc<Rules>, TextError> {
        let builtin = Rules::builtin();
        if builtin.hash() == hash {
            return Ok(builtin);
        }
        let path = self.path(hash);
        let text = match self.read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(TextError::Damaged { path });
            }
            Err(source) => return Err(TextError::Io { path, source }),
        };
        if *blake3::hash(text.as_bytes()).as_bytes() != hash.0 {
            return Err(TextError::Damaged { path });
        }
        Rules::parse(&text).map_err(|wrong| {
            let reason = wrong.first().map_or_else(String::new, ToString::to_string);
            TextError::Meaning { path, reason }
        })
    }

    /// Whether no text is kept.
    pub fn is_empty(&self) -> bool {
        let names = self.disk.list(&self.dir).unwrap_or_default();
        !names.iter().any(|name| name.ends_with(".toml"))
    }

    /// Removes every text but these. What can't be removed only takes room.
    pub fn keep_only(&self, needed: &BTreeSet<RulesHash>) {
        let names = needed.iter().map(|hash| format!("{hash}.toml"));
        let names: BTreeSet<String> = names.collect();
        for name in self.disk.list(&self.dir).unwrap_or_default() {
            if !names.contains(&name)
                && let Err(error) = self.disk.remove(&self.dir.join(&name))
            {
                warn!(name, %error, "old decoding rules could not be removed");
            }
        }
    }
}
