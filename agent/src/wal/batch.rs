//! What one read of one connection adds to the log: records in one buffer, and who is to hear.
//!
//! Each record stands as its kind (1 byte), its length (4 bytes, little endian) and its bytes, so
//! that a batch is one allocation however many messages it holds.

use super::record::{Message, PubRel, RecordKind, Session, TooLarge};
use std::sync::Arc;

/// Who is told that messages are durable.
pub trait Durable: Send + Sync {
    /// Everything up to the source's message number `upto` (counted from 1) is on disk.
    fn durable(&self, upto: u64);
}

const HEAD_BYTES: usize = 5;

/// Records of one source, in its order.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: u32,
    upto: u64,
    source: Option<Arc<dyn Durable>>,
}

impl Batch {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message.
    pub fn message(&mut self, message: &Message<'_>) {
        self.record(RecordKind::Message, |out| message.write(out));
    }

    /// Adds the head of a publication beyond the packet limit.
    pub fn too_large(&mut self, large: &TooLarge<'_>) {
        self.record(RecordKind::TooLarge, |out| large.write(out));
    }

    /// Adds a message that is refused.
    pub fn refused(&mut self, message: &Message<'_>) {
        self.record(RecordKind::Refused, |out| message.write_refused(out));
    }

    /// Adds the release of a QoS 2 message.
    pub fn pubrel(&mut self, release: &PubRel) {
        self.record(RecordKind::PubRel, |out| release.write(out));
    }

    /// Adds what is to be known of a session.
    pub fn session(&mut self, session: &Session) {
        self.record(RecordKind::Session, |out| session.write(out));
    }

    /// Adds a control record.
    pub fn control(&mut self, kind: RecordKind, bytes: &[u8]) {
        self.record(kind, |out| out.extend_from_slice(bytes));
    }

    fn record(&mut self, kind: RecordKind, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[kind.code(), 0, 0, 0, 0]);
        write(&mut self.bytes);
        let length = (self.bytes.len() - start - HEAD_BYTES) as u32;
        if let Some(field) = self.bytes.get_mut(start + 1..start + HEAD_BYTES) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        self.records += 1;
    }

    /// Says who is to hear when all of it is durable, and up to which of its messages that is.
    pub fn tell(&mut self, source: Arc<dyn Durable>, upto: u64) {
        self.source = Some(source);
        self.upto = upto;
    }

    /// Bytes of all records.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that it holds.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives room back that no record needs: it has to wait.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// How many records there are.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Every record: its kind and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let ([kind, length @ ..], behind) = rest.split_first_chunk::<HEAD_BYTES>()?;
            let length = u32::from_le_bytes(*length) as usize;
            let (bytes, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some((*kind, bytes))
        })
    }

    /// Tells the source that all of it is durable.
    pub(super) fn acknowledge(&self) {
        if let Some(source) = &self.source {
            source.durable(self.upto);
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("records", &self.records)
            .field("bytes", &self.bytes.len())
            .field("upto", &self.upto)
            .finish_non_exhaustive()
    }
}
