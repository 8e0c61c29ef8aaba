//! Batches kept for a look: those that do not verify, and those that contradict what is held.
//! Bounded by bytes and files; what is beyond is counted, not kept. Nothing here is a promise.

use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::Disk;
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{AgentId, BufferId};

/// The folder, and how much is in it.
pub struct Quarantine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    names: BTreeSet<String>,
    bytes: u64,
}

impl Quarantine {
    /// The quarantine in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        disk.create_dir_all(dir)?;
        let names = disk.list(dir)?;
        // What cannot be opened takes its place all the same.
        let bytes = |name: &String| {
            let file = disk.open(&dir.join(name));
            file.and_then(|file| file.len()).unwrap_or(0)
        };
        Ok(Self {
            bytes: names.iter().map(bytes).sum(),
            names: names.into_iter().collect(),
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
        })
    }

    /// How many batches are kept.
    pub fn files(&self) -> usize {
        self.names.len()
    }

    /// The names of what is kept, sorted.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }

    /// Whether anything of this buffer is kept.
    pub fn has(&self, agent: &AgentId, buffer: BufferId) -> bool {
        let prefix = format!("{}-{buffer}-", agent.uuid());
        let first = self.names.range(prefix.clone()..).next();
        first.is_some_and(|name| name.starts_with(&prefix))
    }

    /// The bytes of a file; of a longer one, one more than `most`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(&self, name: &str, most: usize) -> io::Result<Bytes> {
        let file = self.disk.open(&self.dir.join(name))?;
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(most + 1)];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes.into())
    }

    /// Removes a batch whose readings are durable elsewhere.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        let bytes = self.disk.open(&path).and_then(|file| file.len());
        self.disk.remove(&path)?;
        self.names.remove(name);
        self.bytes = self.bytes.saturating_sub(bytes.unwrap_or(0));
        self.disk.sync_dir(&self.dir)
    }

    /// Keeps a batch under a name that says whose it is, unless there is no room.
    pub fn keep(&mut self, agent: &AgentId, batch: &SealedBatch, reason: &str) {
        metrics::counter!("tributary_aggregator_quarantined_batches_total").increment(1);
        let key = batch.key();
        let name = format!(
            "{}-{}-{}-{:020}-{:016x}.batch",
            agent.uuid(),
            key.buffer,
            key.lane,
            key.number,
            batch.hash().short()
        );
        let path = self.dir.join(&name);
        let bytes = batch.bytes().len() as u64;
        let room =
            self.names.len() < QUARANTINE_FILES_MAX && self.bytes + bytes <= QUARANTINE_BYTES_MAX;
        tracing::error!(%agent, batch = %key, reason, kept = room, path = %path.display(),
            "a batch is quarantined");
        if !room {
            return;
        }
        match self.write(&path, batch.bytes()) {
            Ok(()) => {
                self.names.insert(name);
                self.bytes += bytes;
            }
            // It came before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => tracing::error!(%error, "the quarantine cannot be written"),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.disk.create(path, bytes.len() as u64)?;
        let written = file.write_at(bytes, 0);
        let written = written.and_then(|()| file.sync_data());
        written
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .inspect_err(|_| {
                // It takes up no room; where that fails, too, the next start counts it.
                let _ = self.disk.remove(path);
            })
    }
}
