//! Where in the log messages of a device stand, for captures: the index of them is extended
//! backwards out of the log, a segment at a time, and messages are read back.

use super::captured::first_of;
use super::put_back::message_in;
use super::{LifeId, Origin, RecordKind, SealStage};
use crate::capture::cost_of;
use crate::forward::Leaves;
use crate::limits::{
    CAPTURE_DISORDER_US, CAPTURE_INDEX_MESSAGE_BYTES, CAPTURE_READ_BYTES, CAPTURE_SCAN_BYTES_MAX,
};
use crate::seal::capture::count_missed;
use crate::wal::{Replay, Replayed};
use std::collections::HashMap;
use std::ops::Range;
use tracing::warn;
use tributary_journal::{Entry, LogError, LogReader, SegmentInfo};
use tributary_protocol::ids::BufferId;

/// How far the index is to reach back before a capture asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ahead {
    /// No message of this life came yet.
    Unknown,
    /// To what was received then.
    To(i64),
    /// It does.
    Done,
}

/// Reads messages back in their order: what was read last, and what can't be.
#[derive(Default)]
pub(super) struct ReadBack {
    frame: Vec<Entry>,
    damaged: Option<(LifeId, Range<u64>)>,
}

impl ReadBack {
    /// One message of the log.
    pub fn entry(&mut self, wal: &LogReader, origin: Origin) -> Option<Entry> {
        let (life, number) = (LifeId(origin.buffer.0), origin.number);
        if let Some(entry) = self.find(life, number) {
            return Some(entry);
        }
        let damaged = self.damaged.as_ref();
        if damaged.is_some_and(|(of, numbers)| *of == life && numbers.contains(&number)) {
            return None;
        }
        self.frame.clear();
        match wal.read_frame(life, number, &mut self.frame) {
            Ok(()) => self.find(life, number),
            Err(error) => {
                warn!(%error, "a capture goes on");
                if let LogError::Damaged { numbers, .. } = error {
                    self.damaged = Some((life, numbers));
                }
                None
            }
        }
    }

    fn find(&self, life: LifeId, number: u64) -> Option<Entry> {
        let first = self.frame.first().filter(|first| first.life == life)?;
        let place = usize::try_from(number.checked_sub(first.number)?).ok()?;
        self.frame.get(place).cloned()
    }
}

/// The messages of a piece of the log.
#[derive(Default)]
struct Piece {
    /// Each device, and the last number of a message of it.
    devices: Vec<(Box<str>, u64)>,
    places: HashMap<Box<str>, u32>,
    messages: Vec<(u32, u64)>,
    /// What it will take in the index.
    bytes: usize,
}

impl Piece {
    fn note(&mut self, device: &str, number: u64) {
        let place = match self.places.get(device) {
            Some(place) => *place,
            None => {
                let place = self.devices.len() as u32;
                self.devices.push((device.into(), u64::MAX));
                self.places.insert(device.into(), place);
                self.bytes += cost_of(device);
                place
            }
        };
        if let Some((_, last)) = self.devices.get_mut(place as usize)
            && *last != number
        {
            *last = number;
            self.messages.push((place, number));
            self.bytes += CAPTURE_INDEX_MESSAGE_BYTES;
        }
    }
}

impl SealStage {
    /// From where on the log may hold what was received at this time or later; `None`: nothing of
    /// it may be looked at.
    pub(super) fn look_from(&self, received: i64) -> Option<Origin> {
        let segments = self.wal.segments();
        let known = self.captures.index.from();
        let (mut from, mut scanned) = (None, 0);
        let mut is_cut = true;
        for segment in segments.iter().rev() {
            let first = first_of(segment);
            if known.is_none_or(|known| first < known) {
                scanned += segment.bytes;
            }
            if scanned > CAPTURE_SCAN_BYTES_MAX {
                break;
            }
            from = Some(first);
            is_cut = self.begins_behind(segment, received);
            if !is_cut {
                break;
            }
        }
        // The log's very first segment has nothing before it.
        is_cut &= from.is_none_or(|from| from.number > 0);
        let floor = self.captures.floor();
        count_missed("ring", usize::from(is_cut));
        from.max(floor)
    }

    /// Whether the first message of a segment was received behind this time, as far as can be told.
    fn begins_behind(&self, segment: &SegmentInfo, received: i64) -> bool {
        let mut entries = Vec::new();
        let (life, first) = (segment.life, segment.first);
        let read = self.wal.read(life, first, CAPTURE_READ_BYTES, &mut entries);
        let mut messages = entries
            .iter()
            .filter_map(|entry| message_in(entry.kind, &entry.bytes));
        let first = messages.next().filter(|_| read.is_ok());
        first.is_none_or(|message| message.received_time > received)
    }

    /// The index holds all from `from` to `to`, as far as it can; gives from where on it does.
    pub(super) fn index_from(&mut self, from: Origin, to: Origin) -> Origin {
        loop {
            let known = self.captures.index.from().unwrap_or(to);
            if known <= from {
                return from;
            }
            let Some(segment) = self.segment_before(known) else {
                return known;
            };
            if !self.index_piece(&segment, from, known) {
                return known;
            }
        }
    }

    /// A message of this life came: an alert of now asks for what is as long before it as a
    /// capture's times are.
    pub(super) fn index_from_now(&mut self, at: Origin, received: i64) {
        if self.ahead == Ahead::Unknown && at.buffer == self.present {
            let pre_us = self.forward.rules().capture().pre_us;
            let back_us = pre_us.saturating_add(CAPTURE_DISORDER_US);
            self.ahead = Ahead::To(received.saturating_sub(back_us));
        }
    }

    /// Takes one more segment into the index, so that little is left to do when a capture asks.
    pub(super) fn index_ahead(&mut self) {
        let (Ahead::To(received), Some(known)) = (self.ahead, self.captures.index.from()) else {
            return;
        };
        let floor = self.captures.floor();
        let segment = self.segment_before(known);
        let segment = segment.filter(|_| floor.is_none_or(|floor| floor < known));
        let goes_on = segment.is_some_and(|segment| {
            let from = floor.map_or(first_of(&segment), |floor| floor.max(first_of(&segment)));
            self.index_piece(&segment, from, known) && self.begins_behind(&segment, received)
        });
        if !goes_on {
            self.ahead = Ahead::Done;
        }
    }

    /// The last segment that begins before this place.
    fn segment_before(&self, at: Origin) -> Option<SegmentInfo> {
        let segments = self.wal.segments().into_iter().rev();
        segments.into_iter().find(|segment| first_of(segment) < at)
    }

    /// Takes what a segment holds from `from` to `known` into the index, before all else; whether
    /// there was room for it, and it could be read.
    fn index_piece(&mut self, segment: &SegmentInfo, from: Origin, known: Origin) -> bool {
        let begin = first_of(segment).max(from);
        let mut piece = Piece::default();
        let mut replay = Replay::new(self.wal.clone(), Some((segment.life, begin.number)));
        loop {
            match replay.next_step() {
                Ok(Some(Replayed::Record {
                    life,
                    number,
                    kind,
                    bytes,
                })) => {
                    let buffer = BufferId(life.0);
                    let origin = Origin { buffer, number };
                    if origin >= known || life != segment.life || number >= segment.end {
                        break;
                    }
                    if !self.index_one(origin, (kind, &bytes), &mut piece) {
                        count_missed("much", 1);
                        return false;
                    }
                }
                Ok(Some(
                    Replayed::Damaged { life, numbers } | Replayed::Missing { life, numbers },
                )) => {
                    if life != segment.life || numbers.start >= segment.end {
                        break;
                    }
                    let count = numbers.end.min(segment.end) - numbers.start;
                    count_missed("unreadable", usize::try_from(count).unwrap_or(usize::MAX));
                }
                Ok(None) => break,
                Err(error) => {
                    warn!(%error, "the log can't be read for captures");
                    count_missed("unreadable", 1);
                    return false;
                }
            }
        }
        let index = &mut self.captures.index;
        let buffer = BufferId(segment.life.0);
        for (place, number) in piece.messages.iter().rev() {
            if let Some((device, _)) = piece.devices.get(*place as usize) {
                let number = *number;
                index.note_earlier(device, Origin { buffer, number });
            }
        }
        index.begins_earlier(begin);
        true
    }

    /// Whether there is room for the devices of this record.
    fn index_one(&mut self, origin: Origin, (kind, bytes): (u8, &[u8]), piece: &mut Piece) -> bool {
        if kind != RecordKind::Message.code() || !self.captures.may_take(origin) {
            return true;
        }
        let message = message_in(kind, bytes).filter(|message| !message.will);
        let Some(message) = message else {
            return true;
        };
        if self.decode(&message).is_err() {
            return true;
        }
        for reading in self.rows.iter() {
            if self.forward.leaves(&reading) == Leaves::OnAnomaly {
                if !self.captures.index.fits(reading.device, piece.bytes) {
                    return false;
                }
                piece.note(reading.device, origin.number);
            }
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;
    use tributary_journal::{Disk, Frame, Log, LogConfig, LogKind, Open, SimDisk};

    #[test]
    fn a_device_is_noted_once_for_a_message_though_others_come_between() {
        let mut piece = Piece::default();
        for number in [3, 4] {
            for _ in 0..50 {
                piece.note("a", number);
                piece.note("b", number);
            }
        }
        assert_eq!(piece.messages, [(0, 3), (1, 3), (0, 4), (1, 4)]);
        let bytes = 2 * cost_of("a") + 4 * CAPTURE_INDEX_MESSAGE_BYTES;
        assert_eq!(piece.bytes, bytes);
    }

    #[test]
    fn a_frame_is_read_once_and_a_damaged_one_is_left_out() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let config = LogConfig {
            segment_bytes: 256 * 1024,
            quota_bytes: 4 << 20,
            reserve_bytes: 0,
            kind: LogKind::Wal,
        };
        let life = LifeId([7; 16]);
        let dir = Path::new("/wal");
        let mut log = Log::open(Arc::clone(&disk), dir, config, Open::NewLife(life)).unwrap();
        for _ in 0..3 {
            let mut frame = Frame::new();
            // More than one read of a piece gives.
            for byte in 0..40 {
                frame.push(1, &[byte; 1_024]).unwrap();
            }
            log.writer.append_reserved(&frame).unwrap();
        }
        let origin = |number| Origin {
            buffer: BufferId(life.0),
            number,
        };
        // The second frame: its payload is found by what is in it.
        let name = disk.list(dir).unwrap();
        let name = name.iter().find(|name| name.contains("07070707")).unwrap();
        let file = disk.open(&dir.join(name)).unwrap();
        let mut all = vec![0; 128 * 1024];
        file.read_at(&mut all, 0).unwrap();
        let thirds: Vec<usize> = (1..all.len())
            .filter(|at| all[*at] == 39 && all[at - 1] != 39 && all.get(at + 9) == Some(&39))
            .collect();
        file.write_at(b"damaged", thirds[1] as u64).unwrap();
        let mut read = ReadBack::default();
        let found = |read: &mut ReadBack, number| read.entry(&log.reader, origin(number));
        assert_eq!(found(&mut read, 5).unwrap().number, 5);
        assert_eq!(read.frame.len(), 35, "the rest of its frame");
        assert_eq!(found(&mut read, 39).unwrap().number, 39);
        assert_eq!(read.frame.len(), 35, "no other read");
        assert!(found(&mut read, 41).is_none());
        assert_eq!(read.damaged, Some((life, 41..80)));
        assert!(found(&mut read, 79).is_none());
        assert_eq!(read.damaged, Some((life, 41..80)), "not read");
        assert_eq!(found(&mut read, 80).unwrap().bytes[0], 0);
        assert_eq!(read.frame.len(), 40);
    }
}
