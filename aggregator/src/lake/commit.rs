//! The three steps of a flush on an object store, and what is found there after a crash.
//!
//! It decides nothing about rows: what is written comes as bytes, where progress stands comes from
//! [`markers`](super::markers).

use super::file::{EncodedFile, footer};
use super::markers::{
    Done, FileEntry, Intent, MARKER_VERSION, MarkerName, Progress, Told, done_path, folder,
    intent_path, progress, to_text,
};
use super::{LakeError, Table, file::LaneSum, file::Span, load::Sums};
use crate::limits::{DONE_MARKERS_MAX, MARKER_BYTES_MAX};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use tributary_planted::planted;
use tributary_protocol::ids::{HashSum, LogId};

/// A file of a flush, with its path below the lake.
#[derive(Clone, PartialEq, Debug)]
pub struct PlannedFile {
    /// Where it goes.
    pub path: String,
    /// What it holds.
    pub file: EncodedFile,
}

/// A flush that was begun and is not done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Begun {
    /// What it is; nothing where nothing was begun, or nothing of it is visible.
    pub intent: Option<Intent>,
    /// An intent that does not say it, and why: to be [set aside](LakeStore::set_aside).
    pub damaged: Option<(String, String)>,
}

/// A lake, as one journal writes it.
#[derive(Debug)]
pub struct LakeStore {
    store: Arc<dyn ObjectStore>,
    /// The lake's folder when it is on this machine: its directories are fsynced.
    local: Option<PathBuf>,
    log: LogId,
    /// Folders whose whole way up is known to be durable.
    durable_folders: HashSet<PathBuf>,
}

impl LakeStore {
    /// The lake in `store`, which lies at `local` if it is on this machine.
    pub fn new(store: Arc<dyn ObjectStore>, local: Option<PathBuf>, log: LogId) -> Self {
        Self {
            store,
            local,
            log,
            durable_folders: HashSet::new(),
        }
    }

    /// The journal that this lake is written from.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// How far the lake has come, and what waits to be redone.
    ///
    /// # Errors
    /// When the store cannot be read, or a marker is not ours.
    pub async fn progress(&self) -> Result<(Progress, Begun), LakeError> {
        let listed = self.list(&folder(self.log)).await?;
        let names = listed.iter().filter_map(|path| path.rsplit('/').next());
        let names: Vec<MarkerName> = names.filter_map(MarkerName::parse).collect();
        let found = progress(&names);
        if !found.open {
            return Ok((found, Begun::default()));
        }
        let begun = self.begun(found.position).await?;
        Ok((found, begun))
    }

    /// What was begun at `first`. Where its intent does not tell, the files do: all of one flush
    /// have its end in their names, and without any nothing of it is visible.
    async fn begun(&self, first: u64) -> Result<Begun, LakeError> {
        let path = intent_path(self.log, first);
        let text = self.read(&path).await?;
        let (told, reason) = match Intent::read(&path, &text, (self.log, first))? {
            Told::Surely(intent) => {
                let intent = Some(intent);
                return Ok(Begun {
                    intent,
                    damaged: None,
                });
            }
            Told::Perhaps(intent) => (Some(intent), "it names another end than they".to_owned()),
            Told::Damaged(reason) => (None, reason),
        };
        let files = self.files_from(first).await?;
        let ends: BTreeSet<u64> = files.iter().map(|(_, end)| *end).collect();
        if let Some(intent) = told.filter(|intent| ends.iter().all(|end| *end == intent.end)) {
            let intent = Some(intent);
            return Ok(Begun {
                intent,
                damaged: None,
            });
        }
        if ends.len() > 1 {
            let files = format!("{}-{first:020}-*", self.log);
            let reason = format!(
                "{reason}; and files of flushes to {ends:?} lie in the lake. Nothing of them \
                 counts yet: moved away, it and all files named {files} are written anew"
            );
            return Err(LakeError::Marker { path, reason });
        }
        let entry = |(path, _): (String, u64)| FileEntry {
            path,
            rows: 0,
            digest: String::new(),
        };
        let intent = ends.first().map(|end| Intent {
            version: MARKER_VERSION,
            log: self.log.to_string(),
            first,
            end: *end,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            files: files.into_iter().map(entry).collect(),
        });
        let damaged = Some((path, reason));
        Ok(Begun { intent, damaged })
    }

    /// The files of this journal whose flush begins at `first`, and where it ends.
    async fn files_from(&self, first: u64) -> Result<Vec<(String, u64)>, LakeError> {
        let mut files = Vec::new();
        for table in Table::ALL {
            files.extend(self.named(table.name(), ".parquet").await?);
        }
        for ending in [".json", ".batches"] {
            files.extend(self.named("rejected", ending).await?);
        }
        let from = files
            .into_iter()
            .filter(|(_, entries)| entries.start == first);
        Ok(from.map(|(path, entries)| (path, entries.end)).collect())
    }

    /// Keeps a copy of an intent that says nothing, and removes it where nothing of its flush is
    /// visible; otherwise the end of the flush removes it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_aside(&mut self, begun: &Begun) -> Result<(), LakeError> {
        let Some((path, reason)) = &begun.damaged else {
            return Ok(());
        };
        let copy = format!("{path}.damaged");
        let redone = begun.intent.as_ref().map(|intent| intent.end);
        tracing::error!(
            path,
            copy,
            reason,
            ?redone,
            "an intent of the lake is damaged; its flush is done as its files say, and nothing is \
             lost: look at the disk"
        );
        let text = self.read(path).await?;
        self.create(&copy, text).await?;
        match begun.intent {
            Some(_) => Ok(()),
            None => self.delete(path).await,
        }
    }

    /// Step 1: fixes the end of the flush. Nothing of it is visible before.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] when somebody else has fixed another one.
    pub async fn begin(&mut self, span: Span, files: &[PlannedFile]) -> Result<(), LakeError> {
        let entry = |planned: &PlannedFile| FileEntry {
            path: planned.path.clone(),
            rows: planned.file.rows,
            digest: planned.file.digest.clone(),
        };
        let intent = Intent {
            version: MARKER_VERSION,
            log: self.log.to_string(),
            first: span.first,
            end: span.end,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            files: files.iter().map(entry).collect(),
        };
        let path = intent_path(self.log, span.first);
        let bytes = Bytes::from(to_text(&intent));
        if !self.create(&path, bytes.clone()).await? && self.read(&path).await? != bytes {
            return Err(LakeError::Fenced { path });
        }
        self.make_folder_durable(&path)
    }

    /// Step 2: puts the files. What an earlier try of this flush left is taken if it is equal.
    ///
    /// # Errors
    /// When the store fails, or holds something else that may not be replaced.
    pub async fn put(&mut self, files: Vec<PlannedFile>) -> Result<(), LakeError> {
        for PlannedFile { path, file } in files {
            if !self.create(&path, file.bytes.clone()).await? {
                self.reconcile(&path, &file).await?;
            }
            self.make_folder_durable(&path)?;
        }
        Ok(())
    }

    /// Removes what the interrupted try of another version put and this one does not.
    ///
    /// # Errors
    /// When the store fails, or the lake is remote, where nothing is ever removed.
    pub async fn drop_other_files(
        &self,
        intent: &Intent,
        files: &[PlannedFile],
    ) -> Result<(), LakeError> {
        for entry in &intent.files {
            if files.iter().any(|planned| planned.path == entry.path) {
                continue;
            }
            if self.local.is_none() {
                return Err(LakeError::Fenced {
                    path: entry.path.clone(),
                });
            }
            self.delete(&entry.path).await?;
        }
        Ok(())
    }

    /// Step 3: the flush counts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish(&mut self, span: Span, sums: &Sums, files: u64) -> Result<(), LakeError> {
        let total = sums
            .values()
            .fold(HashSum::default(), |sum, lane| sum.and(lane.hash_sum));
        let done = Done {
            version: MARKER_VERSION,
            log: self.log.to_string(),
            first: span.first,
            end: span.end,
            batches: sums.values().map(|lane| lane.batches).sum(),
            rows: sums.values().map(|lane| lane.rows).sum(),
            hash_sum: format!("{:032x}", total.0),
            lanes: LaneSum::all(sums),
            files,
        };
        let path = done_path(self.log, span.first, span.end);
        let bytes = Bytes::from(to_text(&done));
        if planted!(Blind9) {
            self.delete(&intent_path(self.log, span.first)).await?;
        }
        if !self.create(&path, bytes.clone()).await? && self.read(&path).await? != bytes {
            return Err(LakeError::Fenced { path });
        }
        self.make_folder_durable(&path)?;
        // The intent has said all it had to; what stops before or fails here is left to `tidy`.
        if let Err(error) = self.delete(&intent_path(self.log, span.first)).await {
            tracing::warn!(%error, "an intent that is done could not be removed");
        }
        Ok(())
    }

    /// Removes markers that no longer say anything, and folds a long chain into one marker.
    ///
    /// # Errors
    /// When the store fails; nothing is lost then.
    pub async fn tidy(&mut self, found: &Progress) -> Result<(), LakeError> {
        for name in &found.obsolete {
            let path = match *name {
                MarkerName::Intent(first) => intent_path(self.log, first),
                MarkerName::Done(first, end) => done_path(self.log, first, end),
            };
            self.delete(&path).await?;
        }
        if found.chain.len() < DONE_MARKERS_MAX {
            return Ok(());
        }
        let mut folded = Vec::new();
        let mut run: Option<Done> = None;
        for step in &found.chain {
            let next = self.marker(*step).await?;
            run = match (run.take(), next) {
                (Some(before), Some(next)) => match before.fold(&next) {
                    Some(both) => Some(both),
                    None => {
                        folded.push(before);
                        Some(next)
                    }
                },
                (before, next) => {
                    folded.extend(before);
                    next
                }
            };
        }
        folded.extend(run);
        for all in folded {
            let path = done_path(self.log, all.first, all.end);
            let is_of_it = |(first, end): &&(u64, u64)| *first >= all.first && *end <= all.end;
            let steps = found.chain.iter().filter(is_of_it);
            let parts: Vec<_> = steps.filter(|it| **it != (all.first, all.end)).collect();
            if parts.is_empty() {
                continue;
            }
            self.create(&path, Bytes::from(to_text(&all))).await?;
            self.make_folder_durable(&path)?;
            for (first, end) in parts {
                self.delete(&done_path(self.log, *first, *end)).await?;
            }
        }
        Ok(())
    }

    /// The done marker of these entries; nothing where it is damaged: it stays as it is, for the
    /// audit to tell.
    async fn marker(&self, (first, end): (u64, u64)) -> Result<Option<Done>, LakeError> {
        let path = done_path(self.log, first, end);
        let text = self.read(&path).await?;
        Ok(match Done::read(&path, &text, self.log) {
            Ok(done) if (done.first, done.end) == (first, end) => Some(done),
            Ok(done) => {
                tracing::warn!(
                    path,
                    done.first,
                    done.end,
                    "a marker tells of other entries"
                );
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a marker of the lake is damaged: not folded");
                None
            }
        })
    }

    /// Something lies where this file goes. Equal bytes are this file. On this machine anything
    /// else is replaced: the flush does not count yet, so nobody relies on it. Elsewhere a whole
    /// file with equal rows is taken, for its bytes may differ between versions of Parquet.
    async fn reconcile(&self, path: &str, file: &EncodedFile) -> Result<(), LakeError> {
        let there = self.read_file(path).await?;
        if there == file.bytes {
            return Ok(());
        }
        if self.local.is_some() {
            let location = Path::from(path);
            let payload = PutPayload::from(file.bytes.clone());
            let put = self.store.put(&location, payload).await;
            return put.map(|_| ()).map_err(|source| store_error(path, source));
        }
        if footer(path, &there)?.digest == file.digest {
            return Ok(());
        }
        Err(LakeError::Fenced {
            path: path.to_owned(),
        })
    }

    /// Puts an object that must not be there; whether it was not. Only then is its entry durable:
    /// where the folder's sync failed, the next try finds the object there.
    pub(super) async fn create(&mut self, path: &str, bytes: Bytes) -> Result<bool, LakeError> {
        let created = self.try_create(path, bytes).await;
        if !matches!(created, Ok(true))
            && let Some(root) = &self.local
            && let Some(folder) = root.join(path).parent()
        {
            self.durable_folders.remove(folder);
        }
        created
    }

    async fn try_create(&self, path: &str, bytes: Bytes) -> Result<bool, LakeError> {
        let location = Path::from(path);
        let options = PutMode::Create.into();
        match self
            .store
            .put_opts(&location, PutPayload::from(bytes), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(store_error(path, source)),
        }
    }

    /// A marker's bytes.
    async fn read(&self, path: &str) -> Result<Bytes, LakeError> {
        let location = Path::from(path);
        let wrong = |source| store_error(path, source);
        let size = self.store.head(&location).await.map_err(wrong)?.size;
        if size > MARKER_BYTES_MAX {
            let reason = format!("{size} bytes; at most {MARKER_BYTES_MAX} are read");
            return Err(LakeError::Marker {
                path: path.to_owned(),
                reason,
            });
        }
        self.read_file(path).await
    }

    /// The paths of all objects below a folder.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<String>, LakeError> {
        let listed = self.store.list(Some(&Path::from(folder)));
        let paths = listed.map_ok(|object| object.location.to_string());
        let paths = paths.try_collect().await;
        paths.map_err(|source| store_error(folder, source))
    }

    pub(super) async fn read_file(&self, path: &str) -> Result<Bytes, LakeError> {
        let wrong = |source| store_error(path, source);
        let found = self.store.get(&Path::from(path)).await.map_err(wrong)?;
        found.bytes().await.map_err(wrong)
    }

    async fn delete(&self, path: &str) -> Result<(), LakeError> {
        match self.store.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(store_error(path, source)),
        }
    }

    /// Makes the markers durable that a process put which was killed before their folder was
    /// synced: from here on the journal may let go of what they name.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle(&mut self) -> Result<(), LakeError> {
        let is_there = |root: &PathBuf| root.join(folder(self.log)).is_dir();
        match self.local.as_ref().is_some_and(is_there) {
            true => self.make_folder_durable(&intent_path(self.log, 0)),
            false => Ok(()),
        }
    }

    /// The store fsyncs what it writes and the folders that it makes, but not a folder that a
    /// killed process made before, nor the entry of an object that was there already.
    pub(super) fn make_folder_durable(&mut self, path: &str) -> Result<(), LakeError> {
        let Some(root) = self.local.clone() else {
            return Ok(());
        };
        let mut at = root.join(path);
        at.pop();
        if self.durable_folders.contains(&at) {
            // The way up is durable; the new entry was synced when it was made: see `create`.
            return Ok(());
        }
        let deepest = at.clone();
        while at.starts_with(&root) {
            std::fs::File::open(&at)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| {
                    let source = Box::new(error);
                    store_error(
                        path,
                        object_store::Error::Generic {
                            store: "local",
                            source,
                        },
                    )
                })?;
            if !at.pop() {
                break;
            }
        }
        if self.durable_folders.len() >= 4 * crate::limits::FLUSH_PARTITIONS_MAX {
            self.durable_folders.clear();
        }
        self.durable_folders.insert(deepest);
        Ok(())
    }
}

fn store_error(path: &str, source: object_store::Error) -> LakeError {
    LakeError::Store {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use object_store::local::LocalFileSystem;

    fn store(dir: &std::path::Path) -> LakeStore {
        let local = LocalFileSystem::new_with_prefix(dir).unwrap();
        LakeStore::new(Arc::new(local), Some(dir.to_owned()), LogId([7; 16]))
    }

    /// As after a put whose folder's sync failed: the object is there, its entry is not durable.
    #[tokio::test]
    async fn the_folder_of_an_object_that_was_there_is_synced_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = store(dir.path());
        let path = intent_path(store.log, 5);
        assert!(store.create(&path, Bytes::from_static(b"x")).await.unwrap());
        store.make_folder_durable(&path).unwrap();
        let markers = dir.path().join(folder(store.log));
        assert!(store.durable_folders.contains(&markers));
        assert!(!store.create(&path, Bytes::from_static(b"x")).await.unwrap());
        assert!(
            !store.durable_folders.contains(&markers),
            "taken for durable"
        );
    }

    #[tokio::test]
    async fn markers_of_an_earlier_process_are_made_durable_before_they_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut earlier = store(dir.path());
        earlier.settle().unwrap();
        let path = done_path(earlier.log, 0, 5);
        earlier
            .create(&path, Bytes::from_static(b"x"))
            .await
            .unwrap();
        let mut store = store(dir.path());
        store.settle().unwrap();
        let markers = dir.path().join(folder(store.log));
        assert!(store.durable_folders.contains(&markers));
    }
}
