//! Messages that gave no readings, kept whole with the reason, bounded by bytes: when there is no
//! room the oldest go, and are counted; readings in them are owed, and declared lost. [`view`]
//! reads them beside the agent, [`put_back`] sends them through the present rules.

pub(crate) mod dropped;
mod found;
pub mod put_back;
pub mod show;
pub mod view;

use crate::decode::{Incoming, Rows, Rules, UserProperties};
use crate::limits::{DEAD_LETTER_BYTES, LETTERS_STEP, WAL_SEGMENT_BYTES};
use crate::seal::{Origin, Refused};
use bytes::{Buf, BufMut};
pub use dropped::Tally;
use dropped::{Dropped, Load};
use found::Found;
use metrics::counter;
use put_back::{LetterId, PutBack};
use std::path::Path;
use std::sync::Arc;
use tracing::warn;
use tributary_journal::{
    Disk, Frame, LifeId, Log, LogConfig, LogError, LogKind, LogReader, LogWriter, Open, SegmentInfo,
};
use tributary_protocol::ids::BufferId;

/// Version 1 had no word for the reason, version 2 neither flags nor user properties.
const VERSION: u8 = 3;
/// A flag: it was a will.
const WILL: u8 = 1;
/// The kind of a log's entry that is a dead letter.
const ENTRY_DEAD_LETTER: u8 = 1;
/// Dead letters in one frame, at most.
const FRAME_LETTERS: u32 = 256;

/// A message that gave no readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Letter<'a> {
    /// Which message of the write-ahead log it was.
    pub origin: Origin,
    /// When it was received: microseconds since 1970, UTC.
    pub received_time: i64,
    /// Why it gave none, in one word, as in metrics; empty in letters of version 1.
    pub word: &'a str,
    /// Why it gave none, for people.
    pub reason: &'a str,
    /// Whether it is the last will of a client that was lost.
    pub will: bool,
    /// Where it was published.
    pub topic: &'a str,
    /// What MQTT 5 user properties say of it.
    pub properties: UserProperties<'a>,
    /// What was published.
    pub payload: &'a [u8],
}

impl<'a> Letter<'a> {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.topic.len() + self.payload.len());
        out.put_u8(VERSION);
        out.put_slice(&self.origin.buffer.0);
        out.put_u64_le(self.origin.number);
        out.put_i64_le(self.received_time);
        out.put_u8(u8::from(self.will) * WILL);
        out.put_u32_le(self.properties.len_bytes() as u32);
        self.properties.write(&mut out);
        for text in [self.word, self.reason, self.topic] {
            out.put_u32_le(text.len() as u32);
            out.put_slice(text.as_bytes());
        }
        out.put_slice(self.payload);
        out
    }

    /// The letter in an entry's bytes; `None` when they are none of this version.
    pub fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let input = &mut bytes;
        let version = input.try_get_u8().ok()?;
        if !(1..=VERSION).contains(&version) {
            return None;
        }
        let (id, rest) = input.split_first_chunk()?;
        let buffer = BufferId(*id);
        *input = rest;
        let origin = Origin {
            buffer,
            number: input.try_get_u64_le().ok()?,
        };
        let received_time = input.try_get_i64_le().ok()?;
        let (flags, properties) = match version {
            ..3 => (0, UserProperties::NONE),
            _ => (
                input.try_get_u8().ok()?,
                UserProperties::read(read_bytes(input)?)?,
            ),
        };
        if flags & !WILL != 0 {
            return None;
        }
        let word = match version {
            1 => "",
            _ => read_text(input)?,
        };
        let reason = read_text(input)?;
        let topic = read_text(input)?;
        Some(Self {
            origin,
            received_time,
            word,
            reason,
            will: flags & WILL != 0,
            topic,
            properties,
            payload: input,
        })
    }

    /// Whether it was decoded, or would have been by rules that were lost: then it holds readings
    /// that were acknowledged.
    fn holds_readings(&self) -> bool {
        WORDS_OF_READINGS.contains(&self.word)
    }

    /// Whether the message is here as it was published: not only its head, and not a record of the
    /// log that could not be understood.
    pub fn is_whole(&self) -> bool {
        let is_head = match self.word {
            "" => self.reason.ends_with(TOO_LARGE),
            word => word == WORD_TOO_LARGE,
        };
        !is_head && !self.topic.is_empty()
    }
}

/// The word for a publication beyond the packet limit, of which only the head is here.
pub const WORD_TOO_LARGE: &str = "too_large";
/// The end of its reason.
pub const TOO_LARGE: &str = "more than a packet may have";

/// The words for what was decoded and found no room, or could not be sealed, or had its rules lost.
const WORDS_OF_READINGS: [&str; 4] = ["series", "series_share", "seal", "configuration"];

fn read_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(read_bytes(input)?).ok()
}

fn read_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = input.try_get_u32_le().ok()? as usize;
    let (bytes, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(bytes)
}

/// The dead letters of an agent.
#[derive(Debug)]
pub struct DeadLetters {
    writer: LogWriter,
    reader: LogReader,
    frame: Frame,
    /// What was there at the open and a replay may bring again: it adds no second copy.
    found: Found,
    /// What the letters in the frame are counted as when they are given up.
    waiting: Load,
    dropped: Dropped,
    present: LifeId,
    counting: Counting,
}

impl DeadLetters {
    /// Opens the dead letters in `dir` for the life `present`.
    ///
    /// # Errors
    /// A disk that fails, or files that belong to something else.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        present: BufferId,
        reserve_bytes: u64,
    ) -> Result<Self, LogError> {
        let config = LogConfig {
            segment_bytes: WAL_SEGMENT_BYTES,
            quota_bytes: DEAD_LETTER_BYTES,
            reserve_bytes,
            kind: LogKind::DeadLetter,
        };
        let life = Open::NewLife(LifeId(present.0));
        let opened = Log::open(Arc::clone(disk), dir, config, life)?;
        Ok(Self {
            writer: opened.writer,
            reader: opened.reader,
            frame: Frame::new(),
            found: Found::default(),
            waiting: Load::default(),
            dropped: Dropped::open(disk, dir),
            present: LifeId(present.0),
            counting: Counting {
                rules: Rules::builtin(),
                put_back: PutBack::new(put_back::Done::default()),
                rows: Rows::new(),
            },
        })
    }

    /// Looks for the letters that a replay may bring again: no lane covers their messages, the
    /// first of which is `covered`. Readings in letters that are given up are counted by `rules`,
    /// unless they were put back.
    pub fn expect(&mut self, covered: Option<Origin>, rules: Arc<Rules>, put_back: PutBack) {
        self.found = Found::read(&self.reader, covered);
        self.counting.rules = rules;
        self.counting.put_back = put_back;
        let settled = self.dropped.settle(covered);
        let trimmed = settled.and_then(|()| match self.dropped.below() {
            Some(below) => self.reader.trim(below.life, below.number).map(|_| ()),
            None => Ok(()),
        });
        if let Err(error) = trimmed {
            warn!(%error, "what was given up of dead letters stays for now");
        }
    }

    /// Whether readings in letters that were given up are to be declared lost.
    pub fn owes(&self) -> bool {
        self.dropped.owes()
    }

    /// Those readings: they stand, from now on, under the batch that covers all before `under`.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn declare(&mut self, under: Origin) -> Result<Option<Refused>, LogError> {
        self.dropped.stage(under)
    }

    /// Whether this message was a dead letter at the open: it stays one.
    pub fn holds(&self, origin: Origin) -> bool {
        self.found.holds(origin)
    }

    /// Adds a letter, unless a replay brings it a second time. It is durable after
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the frame was full and could not be written.
    pub fn push(&mut self, letter: &Letter<'_>) -> Result<(), LogError> {
        if self.holds(letter.origin) {
            return Ok(());
        }
        let bytes = letter.write();
        if !self.frame.fits(bytes.len()) {
            self.flush()?;
        }
        let pushed = self.frame.push(ENTRY_DEAD_LETTER, &bytes);
        pushed.expect("a message and its reason are smaller than an entry may be");
        self.waiting.add(self.counting.load(letter));
        let full = self.frame.len_bytes() >= tributary_journal::limits::FRAME_BYTES;
        if full || self.frame.count() >= FRAME_LETTERS {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Makes what was pushed durable, giving up the oldest letters when there is no room; on a disk
    /// without a free block for them, in the end what was pushed. They hold up nothing else.
    ///
    /// # Errors
    /// When the disk fails; what was pushed stays, and may be flushed again.
    pub fn flush(&mut self) -> Result<(), LogError> {
        while self.frame.count() > 0 {
            match self.writer.append(&self.frame) {
                Ok(_) => self.clear(),
                Err(error) if !error.is_full() => return Err(error),
                Err(_) if self.writer.append_reserved(&self.frame).is_ok() => self.clear(),
                Err(_) if self.drop_oldest()? => {}
                Err(_) => {
                    warn!(
                        letters = self.frame.count(),
                        "there is no room for dead letters: they are given up"
                    );
                    self.give_up(self.waiting, None)?;
                    self.clear();
                }
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.frame.clear();
        self.waiting = Load::default();
    }

    /// Counts what is given up, durably, before it goes.
    fn give_up(&mut self, load: Load, below: Option<LetterId>) -> Result<(), LogError> {
        self.dropped.count(load, below)?;
        let letters = load.tally.map_or(0, |tally| tally.letters);
        let readings = load.owed.map_or(0, |owed| owed.readings());
        counter!("tributary_agent_dead_letters_dropped_total").increment(letters);
        counter!("tributary_agent_dead_letters_dropped_readings_total").increment(readings);
        Ok(())
    }

    /// The letters that are durable, oldest first: the log to read them from.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// Gives up the oldest segment; `false` when there is none to give up.
    fn drop_oldest(&mut self) -> Result<bool, LogError> {
        let segments = self.reader.segments();
        let Some(oldest) = segments.iter().find(|s| s.first < s.end) else {
            return Ok(false);
        };
        // The newest of the life that is written stays.
        let of_life = segments.iter().filter(|s| s.life == oldest.life);
        if oldest.life == self.present && of_life.count() == 1 {
            return Ok(false);
        }
        let load = self.load_of(oldest);
        let below = LetterId {
            life: oldest.life,
            number: oldest.end,
        };
        self.give_up(load, Some(below))?;
        self.reader.trim(below.life, below.number)?;
        Ok(true)
    }

    /// What a segment is counted as when it is given up.
    fn load_of(&mut self, segment: &SegmentInfo) -> Load {
        let mut load = Load::default();
        let mut first = segment.first;
        while first < segment.end {
            let end = segment.end.min(first + LETTERS_STEP);
            for entry in found::letters(&self.reader, segment.life, first..end) {
                let id = LetterId {
                    life: entry.life,
                    number: entry.number,
                };
                let Some(letter) = Letter::read(&entry.bytes) else {
                    continue;
                };
                if !self.counting.put_back.with(|done| done.holds(id)) {
                    load.add(self.counting.load(&letter));
                }
            }
            first = end;
        }
        load
    }
}

/// How letters are counted that are given up.
#[derive(Debug)]
struct Counting {
    rules: Arc<Rules>,
    put_back: PutBack,
    rows: Rows,
}

impl Counting {
    fn load(&mut self, letter: &Letter<'_>) -> Load {
        let message = Incoming {
            topic: letter.topic,
            properties: letter.properties,
            payload: letter.payload,
            received_time: letter.received_time,
        };
        let readings = match letter.holds_readings() {
            true => self.rules.decode(&message, &mut self.rows).ok(),
            false => None,
        };
        Load {
            tally: Some(Tally::one(letter.received_time)),
            owed: readings.map(|_| Refused::one(self.rows.len() as u64, letter.received_time)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use tributary_journal::SimDisk;

    const LETTER: Letter<'static> = Letter {
        origin: Origin {
            buffer: BufferId([7; 16]),
            number: 3,
        },
        received_time: 77,
        word: "json",
        reason: "why",
        will: false,
        topic: "a/b",
        properties: UserProperties::NONE,
        payload: b"{",
    };

    #[test]
    fn a_letter_comes_back_and_older_versions_say_less() {
        let mut said = UserProperties::NONE;
        said.take("ts", "7");
        let letter = Letter {
            will: true,
            properties: said,
            ..LETTER
        };
        assert_eq!(Letter::read(&letter.write()), Some(letter));
        let bytes = LETTER.write();
        assert_eq!(Letter::read(&bytes), Some(LETTER));
        // Version, origin and time take 33 bytes, flags and properties 5, then word and its length.
        let old = [&[2], &bytes[1..33], &bytes[38..]].concat();
        assert_eq!(Letter::read(&old), Some(LETTER));
        let old = [&[1], &bytes[1..33], &bytes[46..]].concat();
        assert_eq!(Letter::read(&old), Some(Letter { word: "", ..LETTER }));
        assert_eq!(Letter::read(&[&[4], &bytes[1..]].concat()), None);
        let unknown = [&bytes[..33], &[2], &bytes[34..]].concat();
        assert_eq!(Letter::read(&unknown), None, "a flag that nobody knows");
        for length in 0..bytes.len() - 1 {
            assert_eq!(Letter::read(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn what_is_here_in_part_only_is_told_in_both_versions() {
        let of = |word, reason, topic| {
            Letter {
                word,
                reason,
                topic,
                ..LETTER
            }
            .is_whole()
        };
        assert!(of("json", "why", "a"));
        assert!(!of("too_large", "why", "a"));
        assert!(!of(
            "",
            "300000 bytes of payload: more than a packet may have",
            "a"
        ));
        assert!(!of("record", "why", ""));
    }

    fn at(number: u64) -> Letter<'static> {
        let buffer = LETTER.origin.buffer;
        Letter {
            origin: Origin { buffer, number },
            ..LETTER
        }
    }

    /// The numbers of the messages that are kept, in their order.
    fn kept(dead: &DeadLetters) -> Vec<u64> {
        let lives = dead.reader().lives().into_iter();
        let entries =
            lives.flat_map(|span| found::letters(dead.reader(), span.life, span.first..span.end));
        entries
            .map(|entry| Letter::read(&entry.bytes).unwrap().origin.number)
            .collect()
    }

    #[test]
    fn a_replay_adds_what_is_missing_and_nothing_twice_whatever_the_order() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let open = |life, covered: Option<u64>| {
            let dir = Path::new("/dead");
            let mut dead = DeadLetters::open(&disk, dir, BufferId::new(life, 1), 0).unwrap();
            let of = |number| at(number).origin;
            let put_back = PutBack::new(put_back::Done::default());
            dead.expect(covered.map(of), Rules::builtin(), put_back);
            dead
        };
        let mut dead = open(1, None);
        // One that could not be sealed comes behind what is newer; a thousand came since.
        for number in [1, 2, 5, 3].into_iter().chain(1_000..2_000) {
            dead.push(&at(number)).unwrap();
        }
        dead.flush().unwrap();
        drop(dead);
        // Power fails before a lane covers 3; 4 was in no frame yet.
        let mut dead = open(2, Some(3));
        assert!(!dead.holds(at(2).origin), "is covered: nobody asks for it");
        for number in [3, 4, 5].into_iter().chain(1_000..2_001) {
            dead.push(&at(number)).unwrap();
        }
        dead.flush().unwrap();
        let mut all = kept(&dead);
        assert_eq!(all.len(), 1_006, "nothing twice");
        all.sort_unstable();
        let expected: Vec<u64> = (1..=5).chain(1_000..2_001).collect();
        assert_eq!(all, expected, "nothing lost");
    }

    #[test]
    fn a_disk_without_a_free_block_holds_up_nothing() {
        let sim = SimDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let present = BufferId::new(1, 1);
        let mut dead = DeadLetters::open(&disk, Path::new("/dead"), present, 0).unwrap();
        sim.set_full(true);
        let payload = vec![7; 200_000];
        for number in 0..50 {
            let letter = Letter {
                origin: Origin {
                    buffer: present,
                    number,
                },
                received_time: 1,
                word: "json",
                reason: "nothing",
                will: false,
                topic: "t",
                properties: UserProperties::NONE,
                payload: &payload,
            };
            dead.push(&letter).unwrap();
            dead.flush().unwrap();
        }
        let kept: u64 = dead
            .reader()
            .lives()
            .iter()
            .map(|span| span.end - span.first)
            .sum();
        assert!(
            (15..50).contains(&kept),
            "{kept} are kept in the room that there was"
        );
    }
}
