//! The repair of a spool whose agent is stopped: what can't be read is kept aside and declared, as
//! the agent itself does at its start and when it sends. Nothing that can be read goes.

use super::shed::{gap_for, lane_key};
use super::twice::Stands;
use super::{LANES, LaneReader, OpenError, SpoolConfig, open};
use crate::limits::BATCH_READ_TRIES;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tributary_journal::{Disk, LogError, is_kept, keep_copy};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey};

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// Numbers that stand under a gap now.
    pub declared: Vec<(LaneKey, Range<u64>)>,
    /// Definitions that can be read neither here nor in their copy: no gap stands for them, and
    /// batches that need them wait.
    pub series: Vec<(LaneKey, Range<u64>)>,
    /// Numbers that can't be read, and of whose bytes no copy could be made: not declared.
    pub unkept: Vec<(LaneKey, Range<u64>)>,
}

/// Opens the spool below `dir` as an agent of the life `present` does, which sets segments without
/// a header aside and declares them; then reads every batch that is not acknowledged, and declares
/// those that can't be read back and of which a copy stays.
///
/// # Errors
/// As [`open`]; what was declared before stays so.
pub fn repair(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    present: BufferId,
    config: &SpoolConfig,
) -> Result<Repaired, OpenError> {
    let before = super::gaps_in(disk, dir)?;
    let (_, body) = super::read_cursor(disk, dir)?;
    let mut opened = open(disk, dir, present, config)?;
    let mut repaired = Repaired::default();
    for (key, numbers) in opened.reader.book.all() {
        if !before.contains(&(key, numbers.clone())) {
            repaired.declared.push((key, numbers));
        }
    }
    let readers: BTreeMap<Lane, LaneReader> = opened.reader.readers.clone();
    for (lane, reader) in LANES.iter().filter_map(|lane| readers.get_key_value(lane)) {
        let log_dir = dir.join(lane.name());
        for span in reader.lives() {
            let key = lane_key(span.life, *lane);
            let acked = body.sender.acked(key);
            for number in span.first..span.end {
                let key = BatchKey {
                    buffer: key.buffer,
                    lane: *lane,
                    number,
                };
                let open = !acked.contains(number) && opened.reader.book.numbers(key).is_none();
                if !open {
                    continue;
                }
                let to = match look(reader, key)? {
                    Found::Whole => continue,
                    _ if *lane == Lane::Series => &mut repaired.series,
                    // It goes once the gap is acknowledged.
                    bad if !has_copy(&**disk, &log_dir, key, &bad) => &mut repaired.unkept,
                    _ => {
                        let gap = gap_for(key, None);
                        let gap = gap.expect("names and numbers from a log make a gap");
                        opened.writer.declare(&gap)?;
                        &mut repaired.declared
                    }
                };
                add(to, key);
            }
        }
    }
    Ok(repaired)
}

fn add(to: &mut Vec<(LaneKey, Range<u64>)>, key: BatchKey) {
    match to.last_mut() {
        Some((of, numbers)) if *of == key.lane_key() && numbers.end == key.number => {
            numbers.end += 1;
        }
        _ => to.push((key.lane_key(), key.number..key.number + 1)),
    }
}

/// What stands where a batch should.
enum Found {
    /// It, or nothing, and nothing was lost.
    Whole,
    /// A frame that does not verify: in which segment, from which byte on, how many bytes.
    Frame(String, (u64, u64)),
    /// Something else, in a frame that does.
    Other(Bytes),
}

/// Reads a batch. A disk that fails for a moment gives wrong bytes, too, and a declared loss is for
/// ever.
fn look(reader: &LaneReader, key: BatchKey) -> Result<Found, LogError> {
    let mut found = Found::Whole;
    for _ in 0..BATCH_READ_TRIES {
        match reader.read(key) {
            Ok(Stands::Batch(_)) => return Ok(Found::Whole),
            Ok(Stands::Nothing) => found = Found::Other(Bytes::new()),
            Ok(Stands::Other(bytes, _)) => found = Found::Other(bytes),
            Err(LogError::Damaged {
                segment,
                offset,
                bytes,
                ..
            }) => {
                found = Found::Frame(segment, (offset, bytes));
            }
            // Nothing is there, and nothing was lost.
            Err(LogError::Trimmed { .. }) => return Ok(Found::Whole),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether what is damaged has a copy that stays: the log makes one of a frame when it reads it,
/// and of what stands in a good frame it is made here.
fn has_copy(disk: &dyn Disk, log_dir: &Path, key: BatchKey, found: &Found) -> bool {
    let kept = match found {
        Found::Whole => Ok(true),
        Found::Frame(segment, place) => is_kept(disk, log_dir, segment, *place),
        Found::Other(bytes) => {
            let name = copy_name(key);
            keep_copy(disk, log_dir, &name, bytes).map(|()| true)
        }
    };
    kept.unwrap_or_else(|error| {
        tracing::error!(%key, %error, "what is damaged could not be copied aside");
        false
    })
}

/// The name of the copy of what stands in a good frame, and is no batch.
fn copy_name(key: BatchKey) -> String {
    format!("{}-{:020}", key.buffer, key.number)
}
