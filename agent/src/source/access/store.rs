//! The file of users: read whole, written whole or not at all, by one at a time.

use super::users::{Users, UsersError};
use crate::limits::USERS_FILE_BYTES_MAX;
use rustix::fs::{FlockOperation, Gid, Mode, Uid, fchmod, fchown, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read.
    #[error(
        "users file {}: cannot be read: {source}; `tributary-agent user add NAME --file {}` \
         makes it",
        path.display(), path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than any.
    #[error(
        "users file {}: over {USERS_FILE_BYTES_MAX} bytes: is this the right file?",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// What stands in it is wrong.
    #[error("users file {}: {source}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What.
        source: UsersError,
    },
    /// It cannot be written; the old one stands.
    #[error("users file {}: cannot be written, and stays as it was: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads the file.
///
/// # Errors
/// What is wrong with it.
pub fn load(path: &Path) -> Result<Users, StoreError> {
    let read = |source| StoreError::Read {
        path: path.to_owned(),
        source,
    };
    let wrong = |source| StoreError::Wrong {
        path: path.to_owned(),
        source,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(read)?;
    file.take(USERS_FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(read)?;
    if text.len() as u64 > USERS_FILE_BYTES_MAX {
        return Err(StoreError::Size {
            path: path.to_owned(),
        });
    }
    let text = String::from_utf8(text).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        wrong(UsersError::Toml {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            reason: "not UTF-8".to_owned(),
        })
    })?;
    Users::parse(&text).map_err(wrong)
}

fn folder_of(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// The file, to be changed by nobody else meanwhile.
#[derive(Debug)]
pub struct Editing {
    path: PathBuf,
    /// The folder: locked, and synced behind the file. No lock file is left behind.
    folder: File,
    /// The users that the file held; none when it is not there yet.
    pub users: Users,
}

impl Editing {
    /// Waits until nobody else changes files there, and reads the file.
    ///
    /// # Errors
    /// What is wrong with file or folder.
    pub fn begin(path: &Path) -> Result<Self, StoreError> {
        // A link stays a link: what it leads to is changed.
        let real = fs::canonicalize(path);
        let path = real.as_deref().unwrap_or(path);
        let folder = File::open(folder_of(path)).and_then(|folder| {
            flock(&folder, FlockOperation::LockExclusive)?;
            Ok(folder)
        });
        let folder = folder.map_err(|source| StoreError::Write {
            path: path.to_owned(),
            source,
        })?;
        let users = match load(path) {
            Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Users::default()
            }
            other => other?,
        };
        Ok(Self {
            path: path.to_owned(),
            folder,
            users,
        })
    }

    /// Puts the users in the place of what the file held: durable when this returns.
    ///
    /// # Errors
    /// When it cannot; the file is then as it was.
    pub fn save(self) -> Result<(), StoreError> {
        self.replace().map_err(|source| StoreError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn replace(&self) -> io::Result<()> {
        let text = self.users.to_text();
        if text.len() as u64 > USERS_FILE_BYTES_MAX {
            let reason = format!("{} bytes; at most {USERS_FILE_BYTES_MAX}", text.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let path = &self.path;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let fresh = path.with_file_name(name);
        // One that a crash left; nobody else writes here now.
        let _ = fs::remove_file(&fresh);
        let written = self.write(&fresh, &text);
        if written.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    fn write(&self, fresh: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(fresh)?;
        if let Ok(before) = fs::metadata(&self.path) {
            // Whoever could read it can still do so, but for all others.
            let (uid, gid) = (Uid::from_raw(before.uid()), Gid::from_raw(before.gid()));
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
                fchown(&file, Some(uid), Some(gid))?;
            }
            fchmod(&file, Mode::from_raw_mode(0o600 | (before.mode() & 0o040)))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, &self.path)?;
        self.folder.sync_all()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::super::acl::Grants;
    use super::super::users::User;
    use super::*;
    use std::sync::Arc;

    fn add(path: &Path, name: &str) {
        let mut editing = Editing::begin(path).unwrap();
        let user = User {
            password: None,
            grants: Arc::new(Grants::parse(&[], false).unwrap()),
        };
        editing.users.insert(name, user).unwrap();
        editing.save().unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn it_is_its_owners_alone_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        add(&path, "a");
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        add(&path, "b");
        assert_eq!(mode(&path), 0o640, "the group may, others may not");
        assert_eq!(load(&path).unwrap().len(), 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_one_and_leads_to_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        add(&real, "a");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        add(&link, "b");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load(&real).unwrap().len(), 2);
    }

    #[test]
    fn changes_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        std::thread::scope(|scope| {
            for i in 0..16 {
                let path = &path;
                scope.spawn(move || add(path, &i.to_string()));
            }
        });
        assert_eq!(load(&path).unwrap().len(), 16);
    }

    #[test]
    fn a_wrong_file_is_named_and_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        let error = load(&path).unwrap_err().to_string();
        assert!(
            error.contains("users.toml") && error.contains("user add"),
            "{error}"
        );
        fs::write(&path, b"[users.a]\nread = 1\n").unwrap();
        let error = Editing::begin(&path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        fs::write(&path, b"# \n#\xff\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("line 2: not UTF-8"), "{error}");
        fs::write(&path, vec![b'#'; USERS_FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(load(&path), Err(StoreError::Size { .. })));
    }
}
