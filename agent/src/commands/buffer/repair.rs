//! `buffer repair`: the agent's own way of setting aside and declaring, without the agent.

use super::CommandError;
use crate::buffer::{View, verify};
use crate::config::Config;
use crate::life;
use crate::pipeline::storage;
use crate::spool::repair::{Repaired, repair};
use crate::spool::{self, SpoolConfig};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tributary_journal::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
use tributary_journal::{Checkpoints, DirLock, Disk, OsDisk};
use tributary_protocol::ids::LaneKey;

/// Says what a repair would find.
pub(super) fn try_out(dir: &Path, out: &mut dyn Write) -> Result<bool, CommandError> {
    let verified = verify(dir)?;
    for fault in &verified.faults {
        writeln!(out, "{fault}")?;
    }
    let n = verified.faults.len();
    match n {
        0 => writeln!(out, "nothing is damaged: there is nothing to repair")?,
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
    Ok(repaired.series.is_empty())
}

/// Whether every damaged segment finds room where copies are kept: without it, opening the log
/// would let it go.
fn room(dir: &Path) -> Result<(), CommandError> {
    let view = View::open(dir)?;
    for log in &view.logs {
        let whole = log.recovery.damage.iter();
        let whole = whole.filter(|damage| damage.offset == 0);
        let (files, bytes) = whole.fold((0, 0), |(files, bytes), damage| {
            (files + 1, bytes + damage.bytes)
        });
        let quarantine = dir.join(log.which.folder()).join("quarantine");
        let kept = std::fs::read_dir(&quarantine).into_iter().flatten();
        let kept = kept.filter_map(|entry| entry.ok()?.metadata().ok());
        let (kept_files, kept_bytes) = kept.fold((0, 0), |(files, bytes), file| {
            (files + 1, bytes + file.len())
        });
        let fits = files + kept_files <= QUARANTINE_FILES_MAX
            && bytes + kept_bytes <= QUARANTINE_BYTES_MAX;
        if files > 0 && !fits {
            return Err(CommandError::NoRoom {
                dir: quarantine,
                bytes,
            });
        }
    }
    Ok(())
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
            "{}: definitions that can't be read; batches that need them wait, and no gap stands \
             for them: put the segment back from a copy",
            named(series)
        )?;
    }
    if repaired.declared.is_empty() && repaired.series.is_empty() {
        writeln!(out, "every batch that is still to be sent can be read")?;
    }
    Ok(())
}
