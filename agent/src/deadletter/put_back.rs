//! Putting dead letters back: each becomes a record of the write-ahead log that names the letter
//! and holds its message as it was received then, and goes its way from there, read by the rules
//! that hold now.
//!
//! Which letters were put back is a function of the log, like all else: a checkpoint plus the
//! records behind it. A second record for the same letter changes nothing, so a letter gives its
//! readings once, however often it is asked for, and whenever anybody dies.

mod done;
mod serve;

pub use done::{Done, LetterId, LetterRange};
pub use serve::{Outcome, PutBackError, Putter};

use super::Letter;
use crate::wal::{Message, Qos, Record, RecordKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tributary_journal::LifeId;

const VERSION: u8 = 1;
/// Bytes before the message.
const HEAD_BYTES: usize = 25;

/// A record of the kind `put_back`.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version: 1 |
/// | 1 | 16 | life of the log of dead letters |
/// | 17 | 8 | number of the letter in it |
/// | 25 | | the message, as a record of the kind `message` |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PutBackRecord<'a> {
    /// The letter.
    pub letter: LetterId,
    /// Its message.
    pub message: Message<'a>,
}

impl<'a> PutBackRecord<'a> {
    /// The record that puts this letter back.
    pub fn of(id: LetterId, letter: &Letter<'a>) -> Self {
        // As of a session of its own: it is no publication that could be a repeat of another.
        let message = Message {
            session: 0,
            qos: Qos::AtMostOnce,
            dup: false,
            retain: false,
            v5: false,
            will: letter.will,
            broker: false,
            packet_id: 0,
            received_time: letter.received_time,
            topic: letter.topic,
            properties: letter.properties,
            payload: letter.payload,
        };
        Self {
            letter: id,
            message,
        }
    }

    /// The record's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.message.record_bytes());
        out.push(VERSION);
        out.extend_from_slice(&self.letter.life.0);
        out.extend_from_slice(&self.letter.number.to_le_bytes());
        self.message.write(&mut out);
        out
    }

    /// The record in `bytes`; `None` when they are none of this version.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (life, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let Ok(Record::Message(message)) = Record::parse(RecordKind::Message.code(), rest) else {
            return None;
        };
        Some(Self {
            letter: LetterId {
                life: LifeId(*life),
                number: u64::from_le_bytes(*number),
            },
            message,
        })
    }
}

/// What became of a letter's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It was read, and is no dead letter again.
    Read,
    /// It is a dead letter again.
    DeadAgain,
    /// The letter had been given up before, and gives nothing.
    Gone,
}

/// The letters that were put back, as the sealing stage keeps it and others ask for it.
#[derive(Clone, Debug)]
pub struct PutBack(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    done: Mutex<Done>,
    changed: watch::Sender<()>,
    failed: AtomicU64,
    gone: AtomicU64,
    /// The letter whose record somebody waits for.
    awaited: Mutex<Option<LetterId>>,
    checkpoint: AtomicBool,
}

impl PutBack {
    /// What a checkpoint knows.
    pub fn new(done: Done) -> Self {
        Self(Arc::new(Inner {
            done: Mutex::new(done),
            changed: watch::Sender::new(()),
            failed: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            awaited: Mutex::new(None),
            checkpoint: AtomicBool::new(false),
        }))
    }

    /// A copy of what is known now.
    pub fn done(&self) -> Done {
        self.with(|done| done.clone())
    }

    /// Looks at, or changes, what is known.
    pub fn with<T>(&self, look: impl FnOnce(&mut Done) -> T) -> T {
        look(&mut self.0.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The letter's record was taken in.
    pub fn take_in(&self, letter: LetterId, taken: Taken) {
        match taken {
            Taken::Read => 0,
            Taken::DeadAgain => self.0.failed.fetch_add(1, Ordering::Relaxed),
            Taken::Gone => self.0.gone.fetch_add(1, Ordering::Relaxed),
        };
        self.with(|done| done.insert(letter));
        self.awaited().take_if(|awaited| *awaited == letter);
        self.0.changed.send_replace(());
    }

    /// The letter whose record is waited for: what is known of it may be forgotten, once it is
    /// gone, before anybody looks.
    fn awaited(&self) -> MutexGuard<'_, Option<LetterId>> {
        let awaited = &self.0.awaited;
        awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were gone by the time their record came, since the start.
    fn gone(&self) -> u64 {
        self.0.gone.load(Ordering::Relaxed)
    }

    /// How many were dead letters again, since the start.
    fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Asks for a checkpoint, which tells those who only look what was put back.
    fn want_checkpoint(&self) {
        self.0.checkpoint.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked for a checkpoint since the last look.
    pub fn takes_checkpoint(&self) -> bool {
        self.0.checkpoint.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::decode::UserProperties;
    use crate::seal::Origin;
    use proptest::prelude::*;
    use tributary_protocol::ids::BufferId;

    #[test]
    fn a_record_comes_back_with_the_time_of_then() {
        let mut said = UserProperties::NONE;
        said.take("ts", "7");
        let letter = Letter {
            origin: Origin {
                buffer: BufferId::new(1, 1),
                number: 3,
            },
            received_time: 77,
            word: "json",
            reason: "",
            will: true,
            topic: "a/b",
            properties: said,
            payload: b"{",
        };
        let id = LetterId {
            life: LifeId([5; 16]),
            number: 9,
        };
        let bytes = PutBackRecord::of(id, &letter).write();
        let read = PutBackRecord::read(&bytes).unwrap();
        assert_eq!((read.letter, read.message.received_time), (id, 77));
        assert_eq!((read.message.will, read.message.properties), (true, said));
        assert_eq!(
            (read.message.topic, read.message.payload),
            ("a/b", &b"{"[..])
        );
        for length in 0..HEAD_BYTES + 22 {
            assert_eq!(PutBackRecord::read(&bytes[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            if let Some(record) = PutBackRecord::read(&bytes) {
                prop_assert_eq!(record.write(), bytes);
            }
        }
    }
}
