//! Finding frames in a segment: in order, and behind damage.
//!
//! Reads in windows, so memory does not grow with the segment. Total on any bytes: no panic, and
//! no allocation by a length that a header claims. Decides nothing about what damage means.

use crate::disk::{DiskFile, read_surely};
use crate::limits::{FRAME_ALIGN, FRAME_HEADER_BYTES, READ_BYTES};
use crate::log::format::{FrameHeader, FrameKey, frame_crc};
use crate::log::frame::Entries;
use bytes::Bytes;

/// The grain at which a failing read is tried again.
const PAGE_BYTES: usize = 4096;

/// A frame whose checksum is right.
pub(crate) struct RawFrame {
    pub at: u64,
    pub header: FrameHeader,
    pub payload: Bytes,
}

impl RawFrame {
    pub fn next_at(&self) -> u64 {
        self.at.saturating_add(self.header.frame_bytes())
    }
}

/// What stands behind a bad frame.
pub(crate) enum Behind {
    /// A good frame: the bad one was durable.
    Frame(RawFrame),
    /// Only the header of a later frame. One frame is written at a time, so whatever stands
    /// before it was durable; it itself may be torn.
    Header { at: u64, header: FrameHeader },
    /// Nothing of ours.
    Nothing,
}

/// A walk over one segment's bytes below `limit`.
pub(crate) struct Scan<'a> {
    file: &'a dyn DiskFile,
    key: FrameKey,
    limit: u64,
    window: Bytes,
    window_at: u64,
    read_bytes: usize,
    /// Whether some bytes could not be read, and counted as zeros.
    pub unreadable: bool,
}

impl<'a> Scan<'a> {
    pub fn new(file: &'a dyn DiskFile, key: FrameKey, limit: u64) -> Self {
        Self {
            file,
            key,
            limit,
            window: Bytes::new(),
            window_at: 0,
            read_bytes: READ_BYTES,
            unreadable: false,
        }
    }

    /// Asks the disk for `bytes` at once instead of [`READ_BYTES`].
    pub fn with_read_bytes(mut self, bytes: usize) -> Self {
        self.read_bytes = bytes.clamp(PAGE_BYTES, READ_BYTES);
        self
    }

    /// The frame at `at`, if a good one stands there.
    pub fn frame_at(&mut self, at: u64) -> Option<RawFrame> {
        let header = self.header_at(at)?;
        let bytes = FRAME_HEADER_BYTES + header.payload_bytes;
        let frame = self.bytes_at(at, bytes)?;
        let payload = frame.slice(FRAME_HEADER_BYTES..);
        let good = frame_crc(self.key, &frame) == Some(header.crc)
            && Entries::new(payload.clone(), header.count).whole();
        good.then_some(RawFrame {
            at,
            header,
            payload,
        })
    }

    /// The header at `at`, if it bears our mark and the frame would end within the segment.
    pub fn header_at(&mut self, at: u64) -> Option<FrameHeader> {
        let header = FrameHeader::decode(&self.bytes_at(at, FRAME_HEADER_BYTES)?, self.key)?;
        let end = at.checked_add(header.frame_bytes())?;
        (end <= self.limit).then_some(header)
    }

    /// Looks behind the bad frame at `at` for the next one that holds numbers from `expected` on.
    pub fn behind(&mut self, at: u64, expected: u64) -> Behind {
        let mut best = Behind::Nothing;
        let mut at = at.saturating_add(FRAME_ALIGN);
        // A segment cannot hold more numbers than bytes: a header that claims so is hurt itself.
        let plausible = expected..=expected.saturating_add(self.limit);
        while let Some(found) = self.next_mark(at) {
            at = found.saturating_add(FRAME_ALIGN);
            let Some(header) = self.header_at(found) else {
                continue;
            };
            if !plausible.contains(&header.first) {
                continue;
            }
            if let Some(frame) = self.frame_at(found) {
                return Behind::Frame(frame);
            }
            if header.first > expected {
                best = Behind::Header { at: found, header };
            }
        }
        best
    }

    /// The next aligned place from `at` on that bears our mark.
    fn next_mark(&mut self, mut at: u64) -> Option<u64> {
        let mark = self.key.mark.to_le_bytes();
        loop {
            let bytes = self.bytes_from(at)?;
            let aligned = bytes.chunks(FRAME_ALIGN as usize);
            if let Some(place) = aligned.into_iter().position(|word| word.starts_with(&mark)) {
                return Some(at + place as u64 * FRAME_ALIGN);
            }
            at += (bytes.len() as u64).next_multiple_of(FRAME_ALIGN);
        }
    }

    /// What the window holds from `at` on, at least one word; `None` at the end.
    fn bytes_from(&mut self, at: u64) -> Option<Bytes> {
        let word = FRAME_ALIGN as usize;
        self.bytes_at(at, word)?;
        let skip = usize::try_from(at - self.window_at).ok()?;
        Some(self.window.slice(skip..))
    }

    /// `bytes` bytes at `at`, if the segment has them.
    fn bytes_at(&mut self, at: u64, bytes: usize) -> Option<Bytes> {
        if at.checked_add(bytes as u64)? > self.limit {
            return None;
        }
        if let Some(held) = self.held(at, bytes) {
            return Some(held);
        }
        let wanted = bytes.max(self.read_bytes) as u64;
        let wanted = usize::try_from(wanted.min(self.limit - at)).ok()?;
        self.window = self.read(at, wanted);
        self.window_at = at;
        self.held(at, bytes)
    }

    fn held(&self, at: u64, bytes: usize) -> Option<Bytes> {
        let skip = usize::try_from(at.checked_sub(self.window_at)?).ok()?;
        let end = skip
            .checked_add(bytes)
            .filter(|end| *end <= self.window.len())?;
        Some(self.window.slice(skip..end))
    }

    /// Reads; a page that the disk does not give back counts as zeros.
    fn read(&mut self, at: u64, bytes: usize) -> Bytes {
        let mut buffer = vec![0; bytes];
        match self.file.read_at(&mut buffer, at) {
            Ok(read) => buffer.truncate(read),
            Err(_) => {
                buffer.fill(0);
                for (page, place) in buffer.chunks_mut(PAGE_BYTES).zip(0_u64..) {
                    let at = at + place * PAGE_BYTES as u64;
                    if read_surely(self.file, page, at).is_err() {
                        page.fill(0);
                        self.unreadable = true;
                    }
                }
            }
        }
        Bytes::from(buffer)
    }
}
