//! Batches kept for a look: those that do not verify, and those that contradict what is held.
//! Bounded by bytes and files; what is beyond is counted, not kept. Nothing here is a promise.

use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::AgentId;

/// The folder, and how much is in it.
#[derive(Debug)]
pub struct Quarantine {
    dir: PathBuf,
    files: usize,
    bytes: u64,
}

impl Quarantine {
    /// The quarantine in `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut found = Self {
            dir: dir.to_owned(),
            files: 0,
            bytes: 0,
        };
        for entry in fs::read_dir(dir)? {
            found.files += 1;
            found.bytes += entry?.metadata()?.len();
        }
        Ok(found)
    }

    /// How many batches are kept.
    pub fn files(&self) -> usize {
        self.files
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
        let path = self.dir.join(name);
        let bytes = batch.bytes().len() as u64;
        let room = self.files < QUARANTINE_FILES_MAX && self.bytes + bytes <= QUARANTINE_BYTES_MAX;
        tracing::error!(%agent, batch = %key, reason, kept = room, path = %path.display(),
            "a batch is quarantined");
        if !room || path.exists() {
            return;
        }
        match fs::write(&path, batch.bytes()) {
            Ok(()) => {
                self.files += 1;
                self.bytes += bytes;
            }
            Err(error) => tracing::error!(%error, "the quarantine cannot be written"),
        }
    }
}
