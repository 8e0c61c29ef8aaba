//! A publication that is too large to hold: read past, and only its head is kept.

use super::codec::{Fault, Header, Publish, Version, read_publish};
use crate::limits::TOO_LARGE_HEAD_BYTES;

/// An MQTT 3.1.1 PUBLISH beyond the packet limit, on its way through.
#[derive(Debug)]
pub(super) struct Skipping {
    header: Header,
    passed: usize,
    head: Vec<u8>,
}

impl Skipping {
    pub(super) fn new(header: Header) -> Self {
        Self {
            header,
            passed: 0,
            head: Vec::new(),
        }
    }

    fn packet_id_bytes(&self) -> usize {
        if self.header.flags() & 0b0110 == 0 {
            0
        } else {
            2
        }
    }

    /// Bytes of the body to keep: topic, packet id and the head of the payload.
    fn wanted(&self) -> usize {
        match self.head.first_chunk() {
            Some(length) => {
                let topic = usize::from(u16::from_be_bytes(*length));
                2 + topic + self.packet_id_bytes() + TOO_LARGE_HEAD_BYTES
            }
            None => 2,
        }
    }

    /// Takes what belongs to the packet off the front of `bytes`; gives how much.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.header.body - self.passed);
        let mut rest = bytes.get(..taken).unwrap_or_default();
        // Twice: what is wanted is known only behind the length of the topic.
        for _ in 0..2 {
            let room = self
                .wanted()
                .saturating_sub(self.head.len())
                .min(rest.len());
            let (kept, behind) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.head.extend_from_slice(kept);
            rest = behind;
        }
        self.passed += taken;
        taken
    }

    /// Bytes of memory that its head holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.head.capacity()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.passed == self.header.body
    }

    /// The publication with the head of its payload, and how long the payload was.
    pub(super) fn finish(&self) -> Result<(Publish<'_>, u32), Fault> {
        let publish = read_publish(Version::V4, self.header.flags(), &self.head)?;
        let before = 2 + publish.topic.len() + self.packet_id_bytes();
        Ok((publish, self.header.body.saturating_sub(before) as u32))
    }
}
