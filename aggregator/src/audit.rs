//! The audit: what ledger, journal and lake say of every lane, and where they disagree.
//!
//! It reads, beside a running aggregator or without one, takes no lock and changes nothing.
//! `journal` and `lake` say what each holds, `judge` compares, `deep` reads every row, and
//! [`merge`] lays several aggregators side by side. Nothing here mends anything.

mod files;
mod gaps;
mod lake;
mod rejected;

mod journal;

mod deep;
mod judge;
mod twins;

pub mod merge;
pub mod report;

pub use report::{Finding, LaneReport, Report, Verdict};

use crate::limits::{AUDIT_MOVES_MAX, AUDIT_RETRY_MS, AUDIT_TRIES};
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

/// The lane with these names.
fn lane_of(agent: &str, buffer: &str, lane: &str) -> Option<LaneId> {
    let (tenant, uuid) = agent.split_once('/')?;
    let agent = AgentId::new(tenant, uuid.parse().ok()?).ok()?;
    let (buffer, lane) = (buffer.parse().ok()?, lane.parse().ok()?);
    Some((agent, LaneKey { buffer, lane }))
}

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
    /// A running aggregator went on while it was looked at.
    #[error(
        "nothing could be settled: the aggregator went on faster than it could be read; audit it \
         when it is stopped, or a copy of its folder"
    )]
    Moved,
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
/// stays is said. What changes from look to look could not be settled.
///
/// # Errors
/// [`AuditError`], when there is nothing to compare.
pub fn audit(data_dir: &Path, deep: bool) -> Result<Report, AuditError> {
    audit_beside(data_dir, deep, || {})
}

/// As [`audit`]; `beside` is called in each look once the lake was read, as an aggregator goes on.
///
/// # Errors
/// As [`audit`].
#[doc(hidden)]
pub fn audit_beside(
    data_dir: &Path,
    deep: bool,
    mut beside: impl FnMut(),
) -> Result<Report, AuditError> {
    if !data_dir.join("journal").is_dir() {
        return Err(AuditError::NoData {
            dir: data_dir.to_owned(),
        });
    }
    let mut looker = Looker::new(data_dir, deep)?;
    let (mut before, mut looks): (Option<Report>, _) = (None, 0);
    let mut failed = AuditError::Moved;
    for _ in 0..AUDIT_MOVES_MAX {
        match looker.look(&mut beside) {
            Ok(report) if report.findings.is_empty() => return Ok(report),
            Ok(report) => {
                looks += 1;
                let settled = settle(report, before.as_ref());
                if settled.unsettled.is_empty() || looks >= AUDIT_TRIES {
                    return Ok(settled);
                }
                before = Some(settled);
            }
            Err(AuditError::Moved) => tracing::debug!("looked at anew"),
            Err(error) => {
                looks += 1;
                failed = error;
                if looks >= AUDIT_TRIES {
                    break;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(AUDIT_RETRY_MS));
    }
    before.ok_or(failed)
}

/// Sets apart what the look before did not find as well, and what only that one found is gone.
fn settle(mut report: Report, before: Option<&Report>) -> Report {
    let found = std::mem::take(&mut report.findings);
    let was_there = |wrong: &Finding| {
        let mut all = before
            .into_iter()
            .flat_map(|before| before.findings.iter().chain(&before.unsettled));
        all.any(|other| other.is_as(wrong))
    };
    (report.findings, report.unsettled) = found.into_iter().partition(was_there);
    report
}

/// Looks at an aggregator's directory, again and again; what does not change is read once.
struct Looker<'a> {
    data_dir: &'a Path,
    lake: lake::Lake,
    rows: Option<deep::Rows>,
}

impl<'a> Looker<'a> {
    fn new(data_dir: &'a Path, deep: bool) -> Result<Self, AuditError> {
        let log = journal::log(data_dir)?;
        Ok(Self {
            data_dir,
            lake: lake::Lake::new(&data_dir.join("lake"), log, deep),
            rows: deep.then(deep::Rows::default),
        })
    }

    /// One look. The lake before the journal: what it has taken is in the journal then, or was.
    /// Reading it may take long, in which the journal goes on and lets go: so that what came
    /// meanwhile is read once more, and there is little of that.
    fn look(&mut self, beside: &mut impl FnMut()) -> Result<Report, AuditError> {
        self.update()?;
        beside();
        let began_us = crate::clock::wall_us();
        self.update()?;
        let (log, position) = (self.lake.log, self.lake.position);
        let journal = journal::Journal::read(self.data_dir, log, position)?;
        if journal.first > position && self.lake.position_now()? > position {
            return Err(AuditError::Moved);
        }
        let rows = self.rows.as_ref();
        Ok(judge::judge(
            self.data_dir,
            &self.lake,
            journal,
            rows,
            began_us,
        ))
    }

    fn update(&mut self) -> Result<(), AuditError> {
        self.lake.update()?;
        if let Some(rows) = &mut self.rows {
            let journal = journal::Journal::open(self.data_dir, self.lake.log)?;
            rows.update(&mut self.lake, &journal);
        }
        Ok(())
    }
}
