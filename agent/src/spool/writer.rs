//! The one writer of the spool: makes batches durable, and room for them as each lane's policy
//! says.

use super::gaps::{Book, Gaps};
use super::keeper::SharedKeeper;
use super::policy::{LanePolicy, Policy, RefuseNew};
use super::shed::{contents, gap_for, lane_key};
use super::twice::append_copy;
use super::{DATA_LANES, ENTRY_BATCH, JUDGED_LANES};
use crate::limits::{CLOCK_SANE_FROM_US, REFUSE_ROOM_BYTES};
use crate::seal::Now;
use metrics::counter;
use std::collections::BTreeMap;
use std::{fmt, io};
use tributary_journal::{CursorError, Frame, LogError, LogReader, LogWriter, SegmentInfo};
use tributary_planted::planted;
use tributary_protocol::batch::{GapReason, Kind, SealedBatch, Sealer};
use tributary_protocol::ids::{Lane, LaneKey};
use tributary_uplink::Shed;

/// One lane's log.
#[derive(Debug)]
pub(super) struct LaneLog {
    pub(super) writer: LogWriter,
    pub(super) reader: LogReader,
    /// Of the definitions of series, which lie here twice.
    pub(super) copy: Option<LogWriter>,
    pub(super) policy: LanePolicy,
}

/// The only writer of the spool.
pub struct SpoolWriter {
    lanes: BTreeMap<Lane, LaneLog>,
    gaps: Gaps,
    keeper: SharedKeeper,
    frame: Frame,
    sealer: Sealer,
    refuse: RefuseNew,
    /// When the spool was opened, by both clocks.
    opened: Option<Now>,
}

impl fmt::Debug for SpoolWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolWriter")
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}

impl SpoolWriter {
    pub(super) fn new(lanes: BTreeMap<Lane, LaneLog>, gaps: Gaps, keeper: SharedKeeper) -> Self {
        Self {
            lanes,
            gaps,
            keeper,
            frame: Frame::new(),
            sealer: Sealer::new(),
            refuse: RefuseNew::default(),
            opened: None,
        }
    }

    /// Whether what comes is to be refused, for the sources.
    pub fn refuse_new(&self) -> RefuseNew {
        self.refuse.clone()
    }

    /// Makes batches of one lane durable, all or none of them, and gives them as they are stored:
    /// in a full lane whose policy is `drop-newest`, a gap takes the place of one. After an error
    /// nothing of them is durable, and they may come again.
    ///
    /// # Errors
    /// What the log says; full, where nothing may give way.
    pub fn append(&mut self, batches: Vec<SealedBatch>) -> Result<Vec<SealedBatch>, LogError> {
        let Some(lane) = batches.first().map(|batch| batch.key().lane) else {
            return Ok(batches);
        };
        let log = lane_of(&mut self.lanes, lane);
        if let Some(copy) = &mut log.copy
            && let Err(error) = append_copy(copy, &mut self.frame, &batches)
        {
            // It makes things safer, and must hold nothing up. Numbers are not left out in it: for
            // the rest of this life it is as short as it is.
            tracing::warn!(%error, "definitions of series lie once from here on, until a restart");
            counter!("tributary_agent_series_copy_errors_total").increment(1);
            log.copy = None;
        }
        loop {
            let log = lane_of(&mut self.lanes, lane);
            fill(&mut self.frame, log.writer.next_number(), &batches);
            let full = match log.writer.append(&self.frame) {
                Ok(_) => return Ok(batches),
                Err(error) if error.is_full() => error,
                Err(error) => return Err(error),
            };
            match log.policy.policy {
                // What frees room, or declares a loss, is small and has a segment of its own.
                // Lanes in which nothing is declared need not keep it back.
                Policy::Block if lane != Lane::Telemetry => {
                    log.writer.append_reserved(&self.frame)?;
                    return Ok(batches);
                }
                _ if batches.iter().all(|batch| batch.kind() == Kind::Gap) => {
                    log.writer.append_reserved(&self.frame)?;
                    return Ok(batches);
                }
                Policy::Block | Policy::DropNewest
                    if makes_room(log, &self.gaps.book, lane)
                        && log.writer.append_reserved(&self.frame).is_ok() =>
                {
                    return Ok(batches);
                }
                Policy::Block => return Err(full),
                Policy::DropNewest => return self.drop_newest(lane, &batches),
                Policy::DropOldest => {
                    if !self.shed_oldest(lane)? {
                        // Nothing is left but the segment that is full: with the last one in use,
                        // it can be the next to go.
                        let log = lane_of(&mut self.lanes, lane);
                        log.writer.append_reserved(&self.frame)?;
                        return Ok(batches);
                    }
                }
            }
        }
    }

    fn drop_newest(
        &mut self,
        lane: Lane,
        batches: &[SealedBatch],
    ) -> Result<Vec<SealedBatch>, LogError> {
        let mut dropped = 0;
        let stand_in = |batch: &SealedBatch| {
            if batch.kind() == Kind::Gap {
                return batch.clone();
            }
            dropped += u64::from(batch.rows());
            gap_for(batch.key(), Some(batch)).expect("what a sealed batch says, a gap may say")
        };
        let gaps: Vec<_> = batches.iter().map(stand_in).collect();
        let log = lane_of(&mut self.lanes, lane);
        fill(&mut self.frame, log.writer.next_number(), &gaps);
        log.writer.append_reserved(&self.frame)?;
        count_shed(lane, Some(dropped));
        Ok(gaps)
    }

    /// Gives up the oldest segment of a lane, behind a gap that is durable; `false` when there is
    /// none but the one that is being written.
    fn shed_oldest(&mut self, lane: Lane) -> Result<bool, LogError> {
        let log = lane_of(&mut self.lanes, lane);
        let Some(oldest) = closed(log).into_iter().next() else {
            return Ok(false);
        };
        self.shed(lane, &oldest, "no room, oldest first")?;
        Ok(true)
    }

    fn shed(&mut self, lane: Lane, segment: &SegmentInfo, why: &str) -> Result<(), LogError> {
        let Self {
            lanes,
            gaps,
            keeper,
            sealer,
            ..
        } = self;
        let log = lane_of(lanes, lane);
        let key = lane_key(segment.life, lane);
        // The cursor comes later, and no gap stands for these.
        let acked = gaps.book.acked(key).min(segment.end);
        let known = keeper.lock().know(key, segment.first..acked);
        known.map_err(not_kept)?;
        for numbers in open_numbers(&gaps.book, key, (segment, acked)) {
            let (mut readings, mut bytes) = (Some(0), 0_u64);
            for piece in contents(&log.reader, key, numbers)? {
                readings = readings.zip(piece.readings()).map(|(all, more)| all + more);
                let gap = piece.gap((GapReason::Shed, why.to_owned()), sealer);
                let gap = gap.expect("what sealed batches say, a gap may say");
                if planted!(Blind10) {
                    log.reader.trim(segment.life, segment.end)?;
                }
                gaps.append(&gap)?;
                bytes += piece.bytes().saturating_sub(gap.bytes().len() as u64);
            }
            tracing::warn!(lane = lane.name(), buffer = %key.buffer, first = numbers.0,
                end = numbers.1, readings, why, "sealed readings are given up, and declared");
            count_shed(lane, readings);
            gaps.book.tell(Shed {
                key,
                numbers: numbers.0..numbers.1,
                bytes,
            });
        }
        log.reader.trim(segment.life, segment.end)?;
        if !gaps.prepare() && log.writer.give_back() {
            // The disk is full, and the next gap may need these blocks more.
            gaps.prepare();
        }
        Ok(())
    }

    /// Makes a gap durable that stands for a batch which can't be read back.
    ///
    /// # Errors
    /// When the disk fails, or more is declared than is kept.
    pub(super) fn declare(&mut self, gap: &SealedBatch) -> Result<(), LogError> {
        self.gaps.append(gap)
    }

    /// Gives up what is too old, and looks whether new readings are to be refused.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn tick(&mut self, now: Now) -> Result<(), LogError> {
        let opened = *self.opened.get_or_insert(now);
        for lane in DATA_LANES.into_iter().chain(JUDGED_LANES) {
            let log = lane_of(&mut self.lanes, lane);
            let Some(max_age) = log.policy.max_age else {
                continue;
            };
            let max_age_us = i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX);
            let closed = closed(log);
            let all = log.reader.segments();
            for segment in closed {
                // Its last batch is older than the next segment.
                let next = all
                    .iter()
                    .find(|next| (next.life, next.first) > (segment.life, segment.first));
                let newest_us = next.map_or(segment.created_us, |next| next.created_us);
                if age_us(newest_us, opened, now) <= max_age_us {
                    break;
                }
                let why = format!("older than {} h", max_age.as_secs() / 3_600);
                self.shed(lane, &segment, &why)?;
            }
        }
        self.look_for_room();
        Ok(())
    }

    fn look_for_room(&mut self) {
        let log = lane_of(&mut self.lanes, Lane::Telemetry);
        let full = log.policy.policy == Policy::DropNewest
            && log.writer.room_bytes() < REFUSE_ROOM_BYTES
            && !log.writer.can_roll()
            && !is_drained(log, &self.gaps.book, Lane::Telemetry);
        if self.refuse.set(full) {
            match full {
                true => tracing::warn!("the spool is full: new readings are refused"),
                false => tracing::info!("the spool has room: readings are taken again"),
            }
            metrics::gauge!("tributary_agent_refusing").set(f64::from(u8::from(full)));
        }
    }
}

/// How long ago something was, by a clock that may have been wrong then: one that said what can't
/// be counts from the opening on.
fn age_us(then_us: i64, opened: Now, now: Now) -> i64 {
    let since_open = now.monotonic.saturating_sub(opened.monotonic);
    if (CLOCK_SANE_FROM_US..opened.wall).contains(&then_us) {
        return since_open.saturating_add(opened.wall - then_us);
    }
    match (opened.wall..=now.wall).contains(&then_us) {
        // A clock that jumped ahead since makes nothing older than the life is.
        true => since_open.min(now.wall - then_us),
        false => since_open,
    }
}

/// The segments of a lane that are written to no more, oldest first.
fn closed(log: &LaneLog) -> Vec<SegmentInfo> {
    let mut segments = log.reader.segments();
    let present = log.writer.life();
    if segments.last().is_some_and(|last| last.life == present) {
        segments.pop();
    }
    segments
}

/// Whether a segment of the lane goes once the cursor was written: all in it is acknowledged. The
/// newest one goes only when there is another: where others have taken the disk, the segment that
/// is kept back has to be used for that.
fn makes_room(log: &LaneLog, book: &Book, lane: Lane) -> bool {
    let is_open = |segment: &SegmentInfo| {
        let key = lane_key(segment.life, lane);
        !open_numbers(book, key, (segment, book.acked(key))).is_empty()
    };
    is_drained(log, book, lane) || !closed(log).iter().all(is_open)
}

/// Whether all that this life wrote to the lane is acknowledged.
fn is_drained(log: &LaneLog, book: &Book, lane: Lane) -> bool {
    let next = log.writer.next_number();
    next > 0 && book.acked(lane_key(log.writer.life(), lane)) >= next
}

/// The numbers of a segment that are neither below what is acknowledged nor under a gap already.
fn open_numbers(
    book: &Book,
    key: LaneKey,
    (segment, acked): (&SegmentInfo, u64),
) -> Vec<(u64, u64)> {
    let mut open = Vec::new();
    let mut from = segment.first.max(acked);
    for gap in book.within(key, from..segment.end) {
        let to = gap.start.min(segment.end);
        if from < to {
            open.push((from, to));
        }
        from = from.max(gap.end);
    }
    if from < segment.end {
        open.push((from, segment.end));
    }
    open
}

/// Nothing is given up of which no cursor would know that it was acknowledged.
fn not_kept(error: CursorError) -> LogError {
    LogError::Io {
        doing: "keeping what was acknowledged, in",
        path: "the spool's cursor".into(),
        source: io::Error::other(error),
    }
}

fn lane_of(lanes: &mut BTreeMap<Lane, LaneLog>, lane: Lane) -> &mut LaneLog {
    lanes
        .get_mut(&lane)
        .expect("every lane that is sealed has a spool")
}

fn fill(frame: &mut Frame, next: u64, batches: &[SealedBatch]) {
    frame.clear();
    for (number, batch) in (next..).zip(batches) {
        assert!(
            number == batch.key().number,
            "{} is not number {number}",
            batch.key()
        );
        let pushed = frame.push(ENTRY_BATCH, batch.bytes());
        pushed.expect("a sealed batch is smaller than an entry may be");
    }
}

fn count_shed(lane: Lane, readings: Option<u64>) {
    let lane = lane.name();
    counter!("tributary_agent_shed_total", "lane" => lane).increment(1);
    counter!("tributary_agent_shed_readings_total", "lane" => lane)
        .increment(readings.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_US: i64 = 365 * 86_400 * 1_000_000;

    #[test]
    fn a_wrong_clock_makes_nothing_old() {
        let at = |monotonic, wall| Now { monotonic, wall };
        let (noon, hour) = (56 * YEAR_US, 3_600_000_000);
        let opened = at(0, noon);
        // Of an earlier life, and of this one.
        assert_eq!(age_us(noon - hour, opened, at(hour, noon + hour)), 2 * hour);
        assert_eq!(
            age_us(noon + hour, opened, at(3 * hour, noon + 3 * hour)),
            2 * hour
        );
        // Stamped in 1970, or in what is yet to come: since the opening.
        assert_eq!(age_us(7, opened, at(hour, noon + hour)), hour);
        assert_eq!(age_us(noon + YEAR_US, opened, at(hour, noon + hour)), hour);
        // The clock was in 1970 at the opening, and jumped ahead since.
        let early = at(0, 9_000_000);
        let jumped = at(hour, noon);
        assert_eq!(age_us(8_000_000, early, jumped), hour);
        assert_eq!(age_us(10_000_000, early, jumped), hour);
    }
}
