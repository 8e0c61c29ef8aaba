//! What the spool's cursor holds, as bytes: what is covered, and what was acknowledged by whom.
//! Versioned, little endian, total on arbitrary bytes.

use super::DATA_LANES;
use crate::limits::CURSOR_SLOT_BYTES;
use crate::seal::Origin;
use bytes::{Buf, BufMut, TryGetError};
use std::collections::BTreeMap;
use std::ops::Range;
use tributary_protocol::ids::{BufferId, HashSum, Lane, LaneKey, LogId};
use tributary_protocol::limits::{HELLO_LANES_MAX, NUMBER_MAX, SENDER_LOGS_MAX, SENT_TO_MAX};
use tributary_protocol::ranges::{Held, HeldRanges};
use tributary_protocol::session::{AckedTo, Journal, LaneCursor, Place, SenderCursor};

/// Version 1 knew one lane of data, and one place that was covered; version 2 not who acknowledged:
/// it is written while nobody is known, so that an older build reads it.
const VERSION: u16 = 3;
/// Bytes that are left to the slot's own header.
const SLOT_HEADER_BYTES: usize = 64;
const LANE_BYTES: usize = 16 + 1 + 1 + JOURNAL_BYTES + 2;
const JOURNAL_BYTES: usize = 8 + 16;
const RUN_BYTES: usize = 8 + 8 + 16;
const END_BYTES: usize = 16 + 1 + 8;
/// Lanes, each once for everybody who acknowledged of it.
const LANES_MAX: usize = HELLO_LANES_MAX * (SENDER_LOGS_MAX + 2);
const SOMEBODY: u8 = 0;
const JOURNAL: u8 = 1;
const NOBODY: u8 = 2;

const _: () = assert!(LANES_MAX <= u16::MAX as usize);

/// Why bytes are no cursor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CursorBodyError {
    /// The bytes end too early.
    #[error("the spool's cursor is cut short")]
    Truncated,
    /// Written by a version that this build does not know.
    #[error("the spool's cursor has version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// A field holds what it may not.
    #[error("the spool's cursor: bad {0}")]
    Field(&'static str),
}

impl From<TryGetError> for CursorBodyError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// What the spool's cursor holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CursorBody {
    /// Everything before these messages is in batches that were durable, lane by lane.
    pub covered: BTreeMap<Lane, Origin>,
    /// What was acknowledged, and by whom.
    pub sender: SenderCursor,
    /// How far each lane went: everything below was durable.
    pub ends: BTreeMap<LaneKey, u64>,
    /// There is none that can be read: what was acknowledged is not known.
    pub is_lost: bool,
}

impl CursorBody {
    /// Whether it names all that was acknowledged: it could be read, and nothing was left out.
    /// An earlier program's did not say how far lanes went, and is not told from one that is cut.
    pub(super) fn tells_all(&self) -> bool {
        !self.is_lost && (self.sender.lanes.is_empty() || !self.ends.is_empty())
    }

    /// Numbers of a lane of which it says what became of them. What a journal took back was told to
    /// people when it did.
    pub(super) fn accounted(&self, key: LaneKey) -> HeldRanges {
        let mut accounted = self.sender.acked(key);
        for run in self.runs(key, |by| by == AckedTo::Nobody) {
            accounted.insert_known(*run);
        }
        accounted
    }

    /// The first of these that a journal took back, and that nobody else acknowledged: it is sent
    /// again.
    pub(super) fn taken_back(&self, key: LaneKey, numbers: &Range<u64>) -> Option<u64> {
        let acked = self.sender.acked(key);
        let back = self.runs(key, |by| by == AckedTo::Nobody);
        let first = back.filter_map(|run| {
            acked.first_missing(run.first.max(numbers.start), run.end.min(numbers.end))
        });
        first.min()
    }

    fn runs(&self, key: LaneKey, whose: impl Fn(AckedTo) -> bool) -> impl Iterator<Item = &Held> {
        let lanes = self.sender.lanes.iter();
        let of_lane = lanes.filter(move |known| known.key == key && whose(known.by));
        of_lane.flat_map(|known| &known.acked)
    }

    /// Notes that these numbers of the lane are acknowledged, whether or not the sender still says
    /// so; not those that a journal took back.
    pub(super) fn knows_acked(&mut self, key: LaneKey, numbers: Range<u64>) {
        let unknown = self.accounted(key).missing(numbers.start, numbers.end);
        if key.lane == Lane::Series || unknown.is_empty() {
            return;
        }
        let sum = HashSum::default();
        let runs = unknown.into_iter();
        let acked = runs.map(|(first, end)| Held { first, end, sum }).collect();
        let by = AckedTo::Somebody;
        self.sender.lanes.push(LaneCursor { key, by, acked });
    }

    /// Forgets that anybody acknowledged these numbers.
    pub(super) fn takes_out(&mut self, key: LaneKey, numbers: Range<u64>) {
        let of_lane = self.sender.lanes.iter_mut();
        for known in of_lane.filter(|known| known.key == key) {
            let mut left = HeldRanges::new();
            known.acked.iter().for_each(|run| left.insert_known(*run));
            left.remove(numbers.start, numbers.end);
            known.acked = left.iter().copied().collect();
        }
        self.sender.lanes.retain(|known| !known.acked.is_empty());
    }

    /// The cursor as bytes that fit a slot. What does not fit is left out, and so is how far lanes
    /// went: it is sent again, and what is gone is not taken for lost.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let version = self.version();
        out.put_u16_le(version);
        out.put_u8(self.covered.len() as u8);
        for (lane, origin) in &self.covered {
            out.put_u8(lane.code());
            out.put_slice(&origin.buffer.0);
            out.put_u64_le(origin.number);
        }
        if version >= 3 {
            let sent_to = self.sender.sent_to.iter().take(SENT_TO_MAX);
            out.put_u8(sent_to.len() as u8);
            sent_to.for_each(|journal| write_journal(&mut out, *journal));
        }
        let mut room = CURSOR_SLOT_BYTES as usize - SLOT_HEADER_BYTES - out.len() - 2;
        let fits = self.sender.lanes.iter().take_while(|lane| {
            let bytes = LANE_BYTES + RUN_BYTES * lane.acked.len();
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        });
        let fits: Vec<_> = fits.take(LANES_MAX).collect();
        let all_fit = fits.len() == self.sender.lanes.len();
        out.put_u16_le(fits.len() as u16);
        for lane in fits {
            out.put_slice(&lane.key.buffer.0);
            out.put_u8(lane.key.lane.code());
            if version >= 3 {
                write_by(&mut out, lane.by);
            }
            out.put_u16_le(lane.acked.len() as u16);
            for run in &lane.acked {
                out.put_u64_le(run.first);
                out.put_u64_le(run.end);
                out.put_u128_le(run.sum.0);
            }
        }
        if all_fit {
            self.write_ends(&mut out);
        }
        out
    }

    /// Behind all else, where versions that do not know of it do not read. Only where all lanes
    /// are said: what was acknowledged and is left out would be taken for lost.
    fn write_ends(&self, out: &mut Vec<u8>) {
        let room = CURSOR_SLOT_BYTES as usize - SLOT_HEADER_BYTES - out.len();
        let most = LANES_MAX.min(room.saturating_sub(2) / END_BYTES);
        let ends = self.ends.iter().take(most);
        if ends.len() == 0 {
            return;
        }
        out.put_u16_le(ends.len() as u16);
        for (key, end) in ends {
            out.put_slice(&key.buffer.0);
            out.put_u8(key.lane.code());
            out.put_u64_le(*end);
        }
    }

    /// The oldest version, from 2 on, that can say all of it.
    fn version(&self) -> u16 {
        let mut lanes = self.sender.lanes.iter();
        let nobody_is_known = lanes.all(|lane| lane.by == AckedTo::Somebody);
        match self.sender.sent_to.is_empty() && nobody_is_known {
            true => 2,
            false => VERSION,
        }
    }

    /// The cursor in `bytes`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(mut bytes: &[u8]) -> Result<Self, CursorBodyError> {
        let input = &mut bytes;
        let version = input.try_get_u16_le()?;
        let mut covered = BTreeMap::new();
        let mut sent_to = Vec::new();
        match version {
            1 => {
                let known = input.try_get_u8()? != 0;
                let origin = read_origin(input)?;
                let lanes = DATA_LANES.into_iter().filter(|_| known);
                covered.extend(lanes.map(|lane| (lane, origin)));
            }
            2..=VERSION => {
                for _ in 0..input.try_get_u8()? {
                    let lane = read_lane_code(input)?;
                    covered.insert(lane, read_origin(input)?);
                }
            }
            newer => return Err(CursorBodyError::Version(newer)),
        }
        if version >= 3 {
            for _ in 0..input.try_get_u8()? {
                sent_to.push(read_journal(input)?);
            }
        }
        let count = usize::from(input.try_get_u16_le()?);
        if count > LANES_MAX || sent_to.len() > SENT_TO_MAX {
            return Err(CursorBodyError::Field("count of lanes or journals"));
        }
        let lanes = (0..count)
            .map(|_| read_lane(version, input))
            .collect::<Result<_, _>>()?;
        let mut ends = BTreeMap::new();
        // A cursor that ends here is of before it knew how far lanes went.
        let count = if input.is_empty() {
            0
        } else {
            input.try_get_u16_le()?
        };
        for _ in 0..count {
            let (buffer, lane) = (read_buffer(input)?, read_lane_code(input)?);
            let end = input.try_get_u64_le()?;
            if end > NUMBER_MAX {
                return Err(CursorBodyError::Field("end of a lane"));
            }
            ends.insert(LaneKey { buffer, lane }, end);
        }
        let sender = SenderCursor { lanes, sent_to };
        Ok(Self {
            covered,
            sender,
            ends,
            is_lost: false,
        })
    }
}

fn read_lane_code(input: &mut &[u8]) -> Result<Lane, CursorBodyError> {
    Lane::from_code(input.try_get_u8()?).ok_or(CursorBodyError::Field("lane"))
}

fn read_origin(input: &mut &[u8]) -> Result<Origin, CursorBodyError> {
    Ok(Origin {
        buffer: read_buffer(input)?,
        number: input.try_get_u64_le()?,
    })
}

fn read_buffer(input: &mut &[u8]) -> Result<BufferId, CursorBodyError> {
    read_id(input).map(BufferId)
}

fn read_id(input: &mut &[u8]) -> Result<[u8; 16], CursorBodyError> {
    let (id, rest) = input
        .split_first_chunk()
        .ok_or(CursorBodyError::Truncated)?;
    let id = *id;
    *input = rest;
    Ok(id)
}

fn write_by(out: &mut Vec<u8>, by: AckedTo) {
    match by {
        AckedTo::Somebody => out.put_u8(SOMEBODY),
        AckedTo::Journal(journal) => {
            out.put_u8(JOURNAL);
            write_journal(out, journal);
        }
        AckedTo::Nobody => out.put_u8(NOBODY),
    }
}

fn write_journal(out: &mut Vec<u8>, journal: Journal) {
    out.put_u64_le(journal.place.0);
    out.put_slice(&journal.log.0);
}

fn read_journal(input: &mut &[u8]) -> Result<Journal, CursorBodyError> {
    Ok(Journal {
        place: Place(input.try_get_u64_le()?),
        log: LogId(read_id(input)?),
    })
}

fn read_by(input: &mut &[u8]) -> Result<AckedTo, CursorBodyError> {
    match input.try_get_u8()? {
        SOMEBODY => Ok(AckedTo::Somebody),
        JOURNAL => read_journal(input).map(AckedTo::Journal),
        NOBODY => Ok(AckedTo::Nobody),
        _ => Err(CursorBodyError::Field("name of who acknowledged")),
    }
}

fn read_lane(version: u16, input: &mut &[u8]) -> Result<LaneCursor, CursorBodyError> {
    let buffer = read_buffer(input)?;
    let lane = read_lane_code(input)?;
    let by = match version {
        3.. => read_by(input)?,
        _ => AckedTo::Somebody,
    };
    let mut acked = Vec::new();
    let mut at = 0;
    for _ in 0..input.try_get_u16_le()? {
        let (first, end) = (input.try_get_u64_le()?, input.try_get_u64_le()?);
        let sum = HashSum(input.try_get_u128_le()?);
        if first < at || first >= end || end > NUMBER_MAX {
            return Err(CursorBodyError::Field("range"));
        }
        at = end + 1;
        acked.push(Held { first, end, sum });
    }
    Ok(LaneCursor {
        key: LaneKey { buffer, lane },
        by,
        acked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn journal(n: u64) -> Journal {
        Journal {
            place: Place(n),
            log: LogId([n as u8; 16]),
        }
    }

    fn lane(life: u64, runs: u64) -> LaneCursor {
        let run = |i: u64| Held {
            first: i * 9,
            end: i * 9 + 4,
            sum: HashSum(u128::from(i)),
        };
        LaneCursor {
            key: LaneKey {
                buffer: BufferId::new(life, 1),
                lane: Lane::Telemetry,
            },
            by: match life % 3 {
                2 => AckedTo::Somebody,
                0 => AckedTo::Nobody,
                _ => AckedTo::Journal(journal(life)),
            },
            acked: (0..runs).map(run).collect(),
        }
    }

    fn origin(number: u64) -> Origin {
        Origin {
            buffer: BufferId::new(3, 4),
            number,
        }
    }

    /// Bytes that version 1 wrote: no lane, one place covered.
    #[test]
    fn version_1_is_read() {
        let mut bytes = vec![1, 0, 1];
        bytes.extend(origin(77).buffer.0);
        bytes.extend(77u64.to_le_bytes());
        bytes.extend([0, 0]);
        let body = CursorBody::read(&bytes).unwrap();
        assert_eq!(
            body.covered,
            DATA_LANES.map(|lane| (lane, origin(77))).into()
        );
        assert_eq!(body.sender, SenderCursor::default());
        bytes[0] = 4;
        assert_eq!(CursorBody::read(&bytes), Err(CursorBodyError::Version(4)));
    }

    /// Bytes that version 2 wrote: a place for each lane, and runs that somebody acknowledged.
    #[test]
    fn version_2_is_read_and_written_while_nobody_is_known() {
        let mut bytes = vec![2, 0, 1, Lane::Telemetry.code()];
        bytes.extend(origin(5).buffer.0);
        bytes.extend(5u64.to_le_bytes());
        bytes.extend([1, 0]);
        let known = lane(2, 2);
        bytes.extend(known.key.buffer.0);
        bytes.extend([known.key.lane.code(), 2, 0]);
        for run in &known.acked {
            bytes.extend(run.first.to_le_bytes());
            bytes.extend(run.end.to_le_bytes());
            bytes.extend(run.sum.0.to_le_bytes());
        }
        let body = CursorBody::read(&bytes).unwrap();
        assert_eq!(body.covered, [(Lane::Telemetry, origin(5))].into());
        assert_eq!(body.sender.lanes, [known]);
        // And written as it was, until there is more to say.
        assert_eq!(body.write(), bytes);
        let mut named = body;
        named.sender.sent_to.push(journal(1));
        assert_eq!(named.write()[..2], [3, 0]);
    }

    #[test]
    fn it_comes_back_and_always_fits_its_slot() {
        for lanes in [0, 1, 255, 2_000] {
            let body = CursorBody {
                covered: DATA_LANES
                    .map(|lane| (lane, origin(70 + u64::from(lane.code()))))
                    .into(),
                sender: SenderCursor {
                    lanes: (0..lanes).map(|life| lane(life, life % 60)).collect(),
                    sent_to: vec![journal(3); 2],
                },
                ends: (0..lanes).map(|life| (lane(life, 0).key, life)).collect(),
                is_lost: false,
            };
            let bytes = body.write();
            assert!(bytes.len() + SLOT_HEADER_BYTES <= CURSOR_SLOT_BYTES as usize);
            let back = CursorBody::read(&bytes).expect("written just now");
            assert_eq!(back.covered, body.covered);
            assert_eq!(back.sender.sent_to, body.sender.sent_to);
            let all_fit = back.sender.lanes.len() == body.sender.lanes.len();
            assert_eq!(back.ends, if all_fit { body.ends } else { BTreeMap::new() });
            let (back, lanes_of) = (back.sender.lanes, body.sender.lanes);
            assert_eq!(back, lanes_of[..back.len()]);
            assert!(lanes > 255 || back.len() == lanes as usize);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = CursorBody::read(&bytes);
        }
    }
}
