//! Frames in memory: building one group commit, and walking the entries of one read back.
//!
//! An entry is its kind (one byte), its length (unsigned LEB128, at most five bytes) and its
//! bytes. A frame here has no number and no checksum yet: the writer gives them.

use crate::limits::{
    ENTRY_BYTES_MAX, ENTRY_HEADER_BYTES_MAX, FRAME_ALIGN, FRAME_BYTES, FRAME_BYTES_MAX,
};
use bytes::Bytes;

/// Why an entry was not taken; the frame is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The entry alone is too long.
    #[error("an entry of {0} bytes; at most {ENTRY_BYTES_MAX} fit into one")]
    EntryBytes(usize),
    /// The frame has no room left: append it, and push to the next.
    #[error("the frame is full at {FRAME_BYTES_MAX} bytes: append it first")]
    Full,
}

/// The builder of one group commit. Reuse it: [`clear`](Frame::clear) keeps its buffer.
#[derive(Clone, Default, Debug)]
pub struct Frame {
    payload: Vec<u8>,
    count: u32,
}

impl Frame {
    /// An empty frame.
    pub fn new() -> Self {
        Self {
            payload: Vec::with_capacity(FRAME_BYTES + FRAME_ALIGN as usize),
            count: 0,
        }
    }

    /// Adds one entry.
    ///
    /// # Errors
    /// When the entry is too long, or the frame is full; nothing is added then.
    pub fn push(&mut self, kind: u8, bytes: &[u8]) -> Result<(), FrameError> {
        self.push_parts(kind, &[bytes])
    }

    /// Adds one entry whose bytes are the parts, one after the other.
    ///
    /// # Errors
    /// As [`push`](Frame::push).
    pub fn push_parts(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), FrameError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > ENTRY_BYTES_MAX {
            return Err(FrameError::EntryBytes(bytes));
        }
        if !self.fits(bytes) {
            return Err(FrameError::Full);
        }
        self.payload.push(kind);
        push_varint(&mut self.payload, bytes as u32);
        parts
            .iter()
            .for_each(|part| self.payload.extend_from_slice(part));
        self.count += 1;
        Ok(())
    }

    /// Whether an entry of `bytes` bytes still has room.
    pub fn fits(&self, bytes: usize) -> bool {
        let more = bytes.saturating_add(ENTRY_HEADER_BYTES_MAX);
        self.payload.len().saturating_add(more) <= FRAME_BYTES_MAX
    }

    /// Bytes of payload so far.
    pub fn len_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Entries so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets all entries, and keeps the buffer unless one frame had made it large.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.payload.shrink_to(4 * FRAME_BYTES);
        self.count = 0;
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The entries of a payload whose checksum was right. Ends early, and says so, on bytes that are
/// no entries: a checksum can be right by chance, or a writer wrong.
pub(crate) struct Entries {
    payload: Bytes,
    at: usize,
    left: u32,
}

impl Entries {
    pub fn new(payload: Bytes, count: u32) -> Self {
        Self {
            payload,
            at: 0,
            left: count,
        }
    }

    /// Whether every entry is whole and they fill the payload exactly.
    pub fn whole(mut self) -> bool {
        while self.left > 0 {
            if self.next().is_none() {
                return false;
            }
        }
        self.at == self.payload.len()
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.payload.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(value).ok();
            }
        }
        None
    }
}

impl Iterator for Entries {
    type Item = (u8, Bytes);

    fn next(&mut self) -> Option<(u8, Bytes)> {
        self.left = self.left.checked_sub(1)?;
        let kind = self.byte()?;
        let bytes = self.varint()?;
        let end = self
            .at
            .checked_add(bytes)
            .filter(|end| *end <= self.payload.len())?;
        let entry = self.payload.slice(self.at..end);
        self.at = end;
        Some((kind, entry))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_order() {
        let mut frame = Frame::new();
        let long = vec![5; 300];
        frame.push(1, b"one").unwrap();
        frame.push_parts(2, &[&long, b"tail"]).unwrap();
        frame.push(3, b"").unwrap();
        let payload = Bytes::copy_from_slice(frame.payload());
        assert!(Entries::new(payload.clone(), 3).whole());
        let back: Vec<_> = Entries::new(payload, 3)
            .map(|(k, b)| (k, b.len()))
            .collect();
        assert_eq!(back, [(1, 3), (2, 304), (3, 0)]);
        frame.clear();
        assert!(frame.is_empty() && frame.len_bytes() == 0);
    }

    #[test]
    fn a_frame_is_bounded_and_refusing_changes_nothing() {
        let mut frame = Frame::new();
        let most = vec![0; ENTRY_BYTES_MAX + 1];
        assert_eq!(
            frame.push(0, &most),
            Err(FrameError::EntryBytes(most.len()))
        );
        frame.push(0, most.get(1..).unwrap()).unwrap();
        assert_eq!(frame.push(0, most.get(1..).unwrap()), Err(FrameError::Full));
        assert_eq!(frame.count(), 1);
    }

    #[test]
    fn a_payload_that_is_no_entries_is_noticed() {
        for bad in [
            &[1, 5, 0][..],
            &[1],
            &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[1, 0, 9],
        ] {
            assert!(
                !Entries::new(Bytes::copy_from_slice(bad), 1).whole(),
                "{bad:?}"
            );
        }
    }
}
