//! What opening the spool declares: segments that no reader meets, and numbers that were sealed and
//! are neither here, nor acknowledged, nor under a gap. It reads no batch.

use super::gaps::Gaps;
use super::owed::Owed;
use super::{BATCH_BYTES_LEAST, CursorBody, shed};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use tributary_journal::{Disk, LogError, LogReader, Recovery, was_told};
use tributary_protocol::batch::Sealer;
use tributary_protocol::ids::{BatchHash, BatchKey, Lane, LaneKey};
use tributary_protocol::limits::GAP_NUMBERS_MAX;
use tributary_protocol::ranges::HeldRanges;

/// Declares segments that are damaged and that no reader meets. A number that the aggregator holds
/// after all is judged a replay there.
pub(super) fn declare_unmet(
    (disk, dir): (&dyn Disk, &Path),
    lane: Lane,
    recovery: &Recovery,
    body: &CursorBody,
    gaps: &mut Gaps,
    owed: &mut Owed,
) -> Result<(), LogError> {
    for damage in recovery.unmet() {
        let key = shed::lane_key(damage.life, lane);
        let acked = body.sender.acked(key);
        let acked = acked.first_missing(0, u64::MAX).unwrap_or(0);
        let first = damage.numbers.start.max(acked);
        // Where it is unknown how many there were, as many as can have been.
        let most = damage.numbers.start + damage.bytes / BATCH_BYTES_LEAST + 1;
        let end = match damage.numbers.is_empty() {
            true => most,
            false => damage.numbers.end,
        };
        let declared = gaps.book.numbers(BatchKey {
            buffer: key.buffer,
            lane,
            number: first,
        });
        if first < end && declared.is_none() {
            let (segment, bytes) = (&damage.segment, damage.bytes);
            let detail = format!("{bytes} bytes of {segment} can't be read back");
            let left = declare(key, first..end, &detail, gaps)?;
            if !left.is_empty() {
                owed.owe(body, key, left);
                continue;
            }
        }
        // Once it is acknowledged nobody would know that it was declared.
        if let Err(error) = was_told(disk, dir, damage) {
            tracing::warn!(segment = damage.segment, %error, "it will be looked at again");
        }
    }
    Ok(())
}

/// Declares what is lost without a word. Numbers go from a lane behind an acknowledgement that both
/// slots of the cursor have, or behind a gap; where neither is there any more, the log of gaps is
/// damaged, or files are gone. And the cursor knows how far the lane went: a frame behind the end
/// of what is here was no torn one.
pub(super) fn declare_missing(
    lane: Lane,
    reader: &LogReader,
    body: &CursorBody,
    gaps: &mut Gaps,
    owed: &mut Owed,
) -> Result<(), LogError> {
    let spans = reader.lives().into_iter();
    let held = spans.map(|span| (shed::lane_key(span.life, lane), span.first..span.end));
    let book = gaps.book.clone();
    let missing = missing(body, &held.collect(), |key| book.of(key));
    for (key, numbers) in missing.into_iter().filter(|(key, _)| key.lane == lane) {
        let detail = "they are gone from the spool, and nothing there says why";
        let left = declare(key, numbers, detail, gaps)?;
        owed.owe(body, key, left);
    }
    Ok(())
}

/// What is lost without a word, of lanes that hold these numbers, or none, and have gaps for
/// others. Nothing is where the cursor does not tell all that was acknowledged.
pub(crate) fn missing(
    body: &CursorBody,
    held: &BTreeMap<LaneKey, Range<u64>>,
    gaps: impl Fn(LaneKey) -> Vec<Range<u64>>,
) -> Vec<(LaneKey, Range<u64>)> {
    match body.tells_all() {
        true => unaccounted(body, held, gaps),
        false => Vec::new(),
    }
}

/// Numbers of lanes that are neither held, nor acknowledged as far as the cursor knows, nor under
/// gaps.
pub(super) fn unaccounted(
    body: &CursorBody,
    held: &BTreeMap<LaneKey, Range<u64>>,
    gaps: impl Fn(LaneKey) -> Vec<Range<u64>>,
) -> Vec<(LaneKey, Range<u64>)> {
    let known = body.sender.lanes.iter().map(|known| known.key);
    let known = known.chain(body.ends.keys().copied());
    let keys: BTreeSet<LaneKey> = known.chain(held.keys().copied()).collect();
    let mut missing = Vec::new();
    for key in keys.into_iter().filter(|key| key.lane != Lane::Series) {
        let accounted = accounted(key, body, gaps(key));
        let numbers = held.get(&key).cloned().unwrap_or(0..0);
        let went_to = body.ends.get(&key).copied().unwrap_or(0);
        let below = accounted.missing(0, numbers.start).into_iter();
        let behind = accounted.missing(numbers.end, went_to.max(accounted.end()));
        let lost = below.chain(behind);
        missing.extend(lost.map(|(first, end)| (key, first..end)));
    }
    missing
}

/// Numbers of which is known what became of them, wherever they are.
fn accounted(key: LaneKey, body: &CursorBody, gaps: Vec<Range<u64>>) -> HeldRanges {
    let nothing = BatchHash([0; 32]);
    let mut accounted = body.accounted(key);
    for numbers in gaps {
        accounted.insert_missing(numbers.start, numbers.end, nothing);
    }
    accounted
}

/// Declares these numbers; what of them found no room.
fn declare(
    key: LaneKey,
    Range { start, end }: Range<u64>,
    detail: &str,
    gaps: &mut Gaps,
) -> Result<Range<u64>, LogError> {
    let (buffer, lane) = (key.buffer, key.lane.name());
    tracing::error!(%buffer, lane, first = start, end, detail, "lost: declared now");
    metrics::counter!("tributary_agent_spool_damage_total").increment(1);
    let mut at = start;
    while at < end {
        let to = end.min(at + GAP_NUMBERS_MAX as u64);
        let sealed = shed::unknown(key, (at, to), detail, &mut Sealer::new());
        for gap in sealed.expect("names and numbers from a log make a gap") {
            match gaps.append(&gap) {
                Err(full) if full.is_full() => {
                    tracing::error!(%buffer, lane, first = at, end, %full,
                        "no room to declare what is lost: tried again at the next start");
                    return Ok(at..end);
                }
                appended => appended?,
            }
        }
        at = to;
    }
    Ok(end..end)
}
