//! The audit: what ledger, journal and lake say of every lane, and where they disagree.
//!
//! It reads, beside a running aggregator or without one, takes no lock and changes nothing.
//! `journal` and `lake` say what each holds, `judge` compares, `deep` reads every row, and
//! [`merge`] lays several aggregators side by side. Nothing here mends anything.

mod deep;
mod journal;
mod judge;
mod lake;

pub mod merge;
pub mod report;

pub use report::{Finding, LaneReport, Report};

use crate::limits::{AUDIT_RETRY_MS, AUDIT_TRIES};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tributary_journal::{CheckpointError, LogError};
use tributary_protocol::ids::{AgentId, HashSum, LaneKey};
use tributary_protocol::ranges::HeldRanges;

/// A lane of an agent.
type LaneId = (AgentId, LaneKey);
/// The numbers of lanes, with their hash sums.
type Numbers = BTreeMap<LaneId, HeldRanges>;

/// Number and hash sum of some batches of a lane, and their readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Tally {
    batches: u64,
    rows: u64,
    sum: HashSum,
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            batches: self.batches.wrapping_add(other.batches),
            rows: self.rows.wrapping_add(other.rows),
            sum: self.sum.and(other.sum),
        }
    }

    fn of(held: &HeldRanges) -> Self {
        Self {
            batches: held.count(),
            rows: 0,
            sum: held.sum(),
        }
    }

    /// Without those of `part`, which are among them; modulo 2^64 and 2^128 where they are not.
    fn without(self, part: Self) -> Self {
        Self {
            batches: self.batches.wrapping_sub(part.batches),
            rows: self.rows.wrapping_sub(part.rows),
            sum: HashSum(self.sum.0.wrapping_sub(part.sum.0)),
        }
    }

    fn is_same(self, other: Self) -> bool {
        (self.batches, self.sum) == (other.batches, other.sum)
    }
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No aggregator was ever here.
    #[error(
        "{}: no aggregator's data is there; name its folder with --data-dir or --config{}",
        dir.display(), hint(dir)
    )]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// The journal can't be read.
    #[error("journal: {0}")]
    Journal(#[from] LogError),
    /// The checkpoints can't be read.
    #[error("checkpoints: {0}")]
    Checkpoints(#[from] CheckpointError),
    /// What is left of the journal begins after everything that is known about its past.
    #[error(
        "the journal in {} begins at entry {first}, and no valid checkpoint reaches it: what the \
         ledger holds is not known; put the checkpoints back from a copy",
        dir.display()
    )]
    NoCheckpoint {
        /// The data directory.
        dir: PathBuf,
        /// The journal's first entry.
        first: u64,
    },
    /// A folder of the lake can't be read.
    #[error("{}: {source}", path.display())]
    Lake {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// `tributary run` keeps its aggregator's data in a directory of its own, in the one that it was
/// given.
fn hint(dir: &Path) -> String {
    let inner = dir.join("aggregator");
    match inner.join("journal").is_dir() {
        true => format!(": {}", inner.display()),
        false => String::new(),
    }
}

/// What lies in an aggregator's data directory, compared. `deep` reads every row of the lake.
///
/// A running aggregator goes on meanwhile: what looks wrong is looked at again, and only what
/// stays is said.
///
/// # Errors
/// [`AuditError`], when there is nothing to compare.
pub fn audit(data_dir: &Path, deep: bool) -> Result<Report, AuditError> {
    if !data_dir.join("journal").is_dir() {
        return Err(AuditError::NoData {
            dir: data_dir.to_owned(),
        });
    }
    let mut before: Option<Report> = None;
    for _ in 1..AUDIT_TRIES {
        match look(data_dir, deep) {
            Ok(report) if report.findings.is_empty() => return Ok(report),
            Ok(report) => {
                let stays = |before: &Report| before.findings == report.findings;
                if before.as_ref().is_some_and(stays) {
                    return Ok(report);
                }
                before = Some(report);
            }
            Err(error) => tracing::debug!(%error, "looked at again"),
        }
        std::thread::sleep(Duration::from_millis(AUDIT_RETRY_MS));
    }
    let mut report = look(data_dir, deep)?;
    let moved = before.is_none_or(|before| before.journal != report.journal);
    if moved && !report.findings.is_empty() {
        let note = "the aggregator went on while it was read, and what was found changed with it: \
                    stop it, and audit again";
        report.notes.push(note.to_owned());
    }
    Ok(report)
}

/// One look.
fn look(data_dir: &Path, deep: bool) -> Result<Report, AuditError> {
    // The lake before the journal: what it has taken is in the journal then, or was.
    let log = journal::log(data_dir)?;
    let mut lake = lake::Lake::read(&data_dir.join("lake"), log, deep)?;
    let journal = journal::Journal::read(data_dir, lake.position)?;
    let rows = deep.then(|| deep::read(&mut lake, &journal));
    Ok(judge::judge(data_dir, lake, journal, rows))
}
