//! The repair of a spool whose agent is stopped: what can't be read is kept aside and declared, as
//! the agent itself does at its start and when it sends. Nothing that can be read goes.

use super::shed::{gap_for, lane_key};
use super::{LANES, ONE_ENTRY, OpenError, SpoolConfig, open};
use crate::limits::BATCH_READ_TRIES;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tributary_journal::{Disk, LifeId, LogError, LogReader};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey};

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// Numbers that stand under a gap now.
    pub declared: Vec<(LaneKey, Range<u64>)>,
    /// Definitions that can't be read: no gap stands for them, and batches that need them wait.
    pub series: Vec<(LaneKey, Range<u64>)>,
}

/// Opens the spool below `dir` as an agent of the life `present` does, which sets segments without
/// a header aside and declares them; then reads every batch that is not acknowledged, and declares
/// those that can't be read back.
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
    let readers: BTreeMap<Lane, LogReader> = opened.reader.readers.clone();
    for lane in LANES {
        let Some(reader) = readers.get(&lane) else {
            continue;
        };
        for span in reader.lives() {
            let key = lane_key(span.life, lane);
            let acked = body.sender.acked(key);
            for number in span.first..span.end {
                let key = BatchKey {
                    buffer: key.buffer,
                    lane,
                    number,
                };
                let open = !acked.contains(number) && opened.reader.book.numbers(key).is_none();
                if !open || is_whole(reader, key)? {
                    continue;
                }
                let to = match lane {
                    Lane::Series => &mut repaired.series,
                    _ => {
                        let gap = gap_for(key, None);
                        let gap = gap.expect("names and numbers from a log make a gap");
                        opened.writer.declare(&gap)?;
                        &mut repaired.declared
                    }
                };
                match to.last_mut() {
                    Some((of, numbers)) if *of == key.lane_key() && numbers.end == number => {
                        numbers.end += 1;
                    }
                    _ => to.push((key.lane_key(), number..number + 1)),
                }
            }
        }
    }
    Ok(repaired)
}

/// Whether a batch can be read back. A disk that fails for a moment gives wrong bytes, too, and a
/// declared loss is for ever.
fn is_whole(reader: &LogReader, key: BatchKey) -> Result<bool, LogError> {
    let mut entries = Vec::new();
    for _ in 0..BATCH_READ_TRIES {
        entries.clear();
        match reader.read(LifeId(key.buffer.0), key.number, ONE_ENTRY, &mut entries) {
            Ok(()) => {}
            Err(LogError::Damaged { .. }) => continue,
            // Nothing is there, and nothing was lost.
            Err(LogError::Trimmed { .. }) => return Ok(true),
            Err(error) => return Err(error),
        }
        let entry = entries.drain(..).find(|entry| entry.number == key.number);
        let batch = entry.and_then(|entry| SealedBatch::open(entry.bytes).ok());
        if batch.is_some_and(|batch| batch.key() == key) {
            return Ok(true);
        }
    }
    Ok(false)
}
