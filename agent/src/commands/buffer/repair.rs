//! `buffer repair`: the agent's own way of setting aside and declaring, without the agent.

use super::CommandError;
use crate::buffer::{View, verify};
use crate::config::Config;
use crate::life;
use crate::pipeline::storage;
use crate::spool::repair::{Repaired, repair};
use crate::spool::{self, SpoolConfig};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
use tributary_journal::{Checkpoints, DirLock, Disk, OsDisk, copy_path};
use tributary_protocol::ids::LaneKey;

/// Says what a repair would find.
pub(super) fn try_out(dir: &Path, out: &mut dyn Write) -> Result<bool, CommandError> {
    let verified = verify(dir)?;
    for fault in &verified.faults {
        writeln!(out, "{fault}")?;
    }
    let n = verified.faults.len() as u64 + verified.faults_more;
    match n {
        0 => writeln!(
            out,
            "nothing is damaged but what is declared: nothing to repair"
        )?,
        _ => writeln!(
            out,
            "{n} damaged; of the lanes those that were not acknowledged would be declared lost, \
             and their bytes kept in the log's quarantine/; nothing was changed"
        )?,
    }
    Ok(n == 0)
}

/// Repairs.
pub(super) fn run(dir: &Path, config: &Config, out: &mut dyn Write) -> Result<bool, CommandError> {
    // Before anything is made: this is an agent's directory.
    View::open(dir)?;
    let _lock = DirLock::acquire(dir).map_err(CommandError::Running)?;
    room(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let unsure = |error: &dyn std::fmt::Display| CommandError::Life(error.to_string());
    let checkpoints = Checkpoints::open(Arc::clone(&disk), &dir.join("checkpoint"), "agent");
    let checkpoints = checkpoints.map_err(|error| unsure(&error))?;
    let seen = storage::greatest_life_seen(&disk, dir, &checkpoints);
    let seen = seen.map_err(|error| unsure(&error))?;
    let present = life::begin(&disk, dir, seen).map_err(|error| unsure(&error))?;
    let spool = SpoolConfig {
        telemetry: config.spool.telemetry,
        events: config.spool.events,
        alerts: config.spool.alerts,
        aggregates: config.spool.aggregates,
        reserve_bytes: config.agent.reserve_bytes,
    };
    let repaired = repair(&disk, &spool::dir(dir), present, &spool)?;
    tell(&repaired, out)?;
    Ok(repaired.series.is_empty() && repaired.unkept.is_empty())
}

/// Whether all that is damaged finds room where copies are kept: without it, opening the log would
/// let segments go.
fn room(dir: &Path) -> Result<(), CommandError> {
    let mut needed = Copies::new();
    let view = View::open(dir)?;
    for log in &view.logs {
        let folder = dir.join(log.which.folder());
        for damage in &log.recovery.damage {
            needed.add(&folder, &damage.segment, (damage.offset, damage.bytes));
        }
    }
    // Frames that only reading finds.
    for fault in verify(dir)?.faults {
        if let Some(offset) = fault.offset {
            needed.add(&dir.join(&fault.log), &fault.file, (offset, fault.bytes));
        }
    }
    needed.fit()
}

/// Copies that a repair makes, by the folder of their log: of what, and of how many bytes.
struct Copies(BTreeMap<PathBuf, BTreeMap<PathBuf, u64>>);

impl Copies {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// A frame is copied once; a whole segment is moved, and lies there already where an earlier
    /// open did that.
    fn add(&mut self, folder: &Path, segment: &str, (offset, bytes): (u64, u64)) {
        let copy = copy_path(folder, segment, offset);
        let is_there = match offset {
            0 => !folder.join(segment).exists(),
            _ => copy.exists(),
        };
        if !is_there {
            let of_log = self.0.entry(folder.to_owned()).or_default();
            of_log.insert(copy, bytes);
        }
    }

    fn fit(&self) -> Result<(), CommandError> {
        for (folder, copies) in &self.0 {
            let dir = folder.join("quarantine");
            let kept = std::fs::read_dir(&dir).into_iter().flatten();
            let kept = kept.filter_map(|entry| entry.ok()?.metadata().ok());
            let (files, held) = kept.fold((0, 0), |(files, bytes), file| {
                (files + 1, bytes + file.len())
            });
            let bytes: u64 = copies.values().sum();
            let fits = files + copies.len() <= QUARANTINE_FILES_MAX
                && bytes + held <= QUARANTINE_BYTES_MAX;
            if !fits {
                return Err(CommandError::NoRoom { dir, bytes });
            }
        }
        Ok(())
    }
}

fn tell(repaired: &Repaired, out: &mut dyn Write) -> Result<(), CommandError> {
    let named = |(key, numbers): &(LaneKey, Range<u64>)| {
        let (first, end) = (numbers.start, numbers.end);
        format!("{} {} {first}..{end}", key.buffer, key.lane)
    };
    for declared in &repaired.declared {
        writeln!(out, "{}: declared lost (damaged)", named(declared))?;
    }
    for series in &repaired.series {
        writeln!(
            out,
            "{}: definitions that can't be read, neither here nor in spool/series-copy; batches \
             that need them wait, and no gap stands for them: put a segment back from a copy",
            named(series)
        )?;
    }
    for unkept in &repaired.unkept {
        writeln!(
            out,
            "{}: can't be read, and could not be copied into quarantine/: not declared; see that \
             the disk has room and takes it, and repair again",
            named(unkept)
        )?;
    }
    if *repaired == Repaired::default() {
        writeln!(out, "every batch that is still to be sent can be read")?;
    }
    Ok(())
}
