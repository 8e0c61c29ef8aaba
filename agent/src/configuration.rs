//! Which decoding rules hold when: each life of the log begins with a record that names its rules
//! by their hash, and the text of each is kept, durably before that record, as long as a checkpoint
//! or a frame of the log needs it.
//!
//! A text that is missing or damaged is an alarm, and the messages that came under it are dead
//! letters with the reason `configuration`: whole, to be put back under other rules. They are never
//! read by rules that they did not come under.

mod in_force;
mod texts;

pub use in_force::{Configurations, InForce};
pub use texts::{KeepError, Texts};

use crate::decode::RulesHash;
use crate::wal::{Batch, Queue, RecordKind};

const VERSION: u8 = 1;

/// What a record of the kind `configuration` says: from here on, these rules hold.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version: 1 |
/// | 1 | 32 | BLAKE3 of the rules' text |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announcement(pub RulesHash);

impl Announcement {
    /// The record's bytes.
    pub fn write(self) -> Vec<u8> {
        [&[VERSION][..], &self.0.0].concat()
    }

    /// The record in `bytes`; `None` when they are none of this version.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let hash = bytes.strip_prefix(&[VERSION])?;
        // What a later version adds behind it is passed over.
        hash.first_chunk().map(|hash| Self(RulesHash(*hash)))
    }
}

/// Has the log say, as its next record, that these rules hold. Call it before any message is
/// handed to the log, and after the text is [kept](Texts::keep).
pub fn announce(queue: &Queue, rules: RulesHash) {
    let mut batch = Batch::new();
    batch.control(RecordKind::Configuration, &Announcement(rules).write());
    let room = queue.try_room(batch.len_bytes());
    let room = room.expect("the queue is empty: nothing was handed to it yet");
    queue.push(batch, room);
}
