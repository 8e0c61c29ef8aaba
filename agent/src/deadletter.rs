//! Messages that gave no readings, kept whole with the reason, bounded by bytes: when there is no
//! room the oldest go, and are counted; readings in them are owed, and declared lost. [`view`]
//! reads them beside the agent, [`put_back`] sends them through the present rules.

pub(crate) mod dropped;
mod found;
pub mod put_back;
pub mod show;
pub mod view;

use crate::decode::{Incoming, Rows, Rules, UserProperties};
use crate::limits::{
    DEAD_LETTER_BYTES, LETTERS_DUE_PART, LETTERS_ROOM_PART, LETTERS_SLOTS_FREE_BYTES, LETTERS_STEP,
    WAL_SEGMENT_BYTES,
};
use crate::seal::{Origin, Refused};
use bytes::{Buf, BufMut};
pub use dropped::Tally;
use dropped::{Dropped, Load, both};
pub(crate) use found::Found;
use metrics::counter;
use put_back::{LetterId, PutBack};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::warn;
use tributary_journal::{
    CursorError, Disk, Frame, LifeId, Log, LogConfig, LogError, LogKind, LogReader, LogWriter,
    Open, SegmentInfo,
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

/// Why the dead letters can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Their log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The slots that say what of them was given up.
    #[error("what was given up of dead letters: {0}")]
    Cursor(#[from] CursorError),
    /// The slots were written by a newer version.
    #[error(
        "{} has version {version}, this program knows up to {}: use the newer program",
        path.display(),
        dropped::VERSION
    )]
    NewerVersion {
        /// The slots.
        path: PathBuf,
        /// Their version.
        version: u8,
    },
}

/// The dead letters of an agent.
///
/// Letters that are kept go at one place only, where everything that was read is covered. So a
/// replay never brings the message of a letter that was counted, and a record that puts one back
/// and is not covered came after it was gone: it gives nothing.
#[derive(Debug)]
pub struct DeadLetters {
    writer: LogWriter,
    reader: LogReader,
    frame: Frame,
    segment_bytes: u64,
    /// What was there at the open and a replay may bring again: it adds no second copy.
    found: Found,
    /// What the letters in the frame are counted as when they find no room.
    waiting: Load,
    /// What found no room, and is not declared and counted yet.
    lost: Load,
    /// Bytes of letters that came since everything was covered.
    open_bytes: u64,
    dropped: Dropped,
    present: LifeId,
    counting: Counting,
}

impl DeadLetters {
    /// Opens the dead letters in `dir` for the life `present`.
    ///
    /// # Errors
    /// A disk that fails, or files that belong to something else or to a newer version.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        present: BufferId,
        reserve_bytes: u64,
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, dir, present, Self::config(reserve_bytes))
    }

    /// The log that they are kept in, which leaves so many bytes of the disk free.
    pub(crate) fn config(reserve_bytes: u64) -> LogConfig {
        LogConfig {
            segment_bytes: WAL_SEGMENT_BYTES,
            quota_bytes: DEAD_LETTER_BYTES,
            reserve_bytes,
            kind: LogKind::DeadLetter,
        }
    }

    /// As [`open`](Self::open), with a log of another size.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn open_with(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        present: BufferId,
        config: LogConfig,
    ) -> Result<Self, OpenError> {
        let segment_bytes = config.segment_bytes;
        let life = Open::NewLife(LifeId(present.0));
        let opened = Log::open(Arc::clone(disk), dir, config, life)?;
        Ok(Self {
            writer: opened.writer,
            reader: opened.reader,
            frame: Frame::new(),
            segment_bytes,
            found: Found::default(),
            waiting: Load::default(),
            lost: Load::default(),
            open_bytes: 0,
            dropped: Dropped::open(disk, dir)?,
            present: LifeId(present.0),
            counting: Counting {
                rules: Rules::builtin(),
                put_back: PutBack::new(put_back::Done::default()),
                rows: Rows::new(),
            },
        })
    }

    /// Everything before this message was covered when letters were given up.
    pub fn covered(&self) -> Option<Origin> {
        self.dropped.covered()
    }

    /// Looks for the letters that a replay may bring again: no lane covers their messages, the
    /// first of which is `covered`. Readings in letters that are given up are counted by `rules`,
    /// unless they were put back.
    pub fn expect(&mut self, covered: Option<Origin>, rules: Arc<Rules>, put_back: PutBack) {
        self.found = Found::read(&self.reader, covered);
        self.counting.rules = rules;
        self.counting.put_back = put_back;
        self.dropped.settle(covered);
        if let Some(below) = self.dropped.below()
            && let Err(error) = self.reader.trim(below.life, below.number)
        {
            warn!(%error, "what was given up of dead letters stays for now");
        }
    }

    /// The messages from this one on that are dead letters.
    pub(crate) fn found_from(&self, first: Option<Origin>) -> Found {
        Found::read(&self.reader, first)
    }

    /// Whether enough letters came to have their messages covered.
    pub fn is_due(&self) -> bool {
        self.open_bytes >= self.segment_bytes / LETTERS_DUE_PART
    }

    /// Whether readings in letters that were given up are to be declared lost.
    pub fn owes(&self) -> bool {
        self.dropped.owes() || self.lost.owed.is_some()
    }

    /// Those readings: they stand, from now on, under the batch that covers all before `under`,
    /// all messages of letters that were flushed among it.
    pub fn declare(&mut self, under: Origin) -> Option<Refused> {
        // What found no room needs no word anywhere else: without that batch a replay brings it.
        let lost = self.lost.owed.take();
        both(lost, self.dropped.stage(under), Refused::and)
    }

    /// Whether this message was a dead letter at the open: it stays one.
    pub fn holds(&self, origin: Origin) -> bool {
        self.found.holds(origin)
    }

    /// Whether this letter was given up, and its readings with it.
    pub fn is_gone(&self, letter: LetterId) -> bool {
        self.dropped.below().is_some_and(|below| letter < below)
    }

    /// Adds a letter, unless a replay brings it a second time; `readings` if it is known how many
    /// it was decoded into. It is durable after [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the frame was full and could not be written. The letter was not added then.
    pub fn push(&mut self, letter: &Letter<'_>, readings: Option<u64>) -> Result<(), LogError> {
        if self.holds(letter.origin) {
            return Ok(());
        }
        let bytes = letter.write();
        let full = self.frame.len_bytes() >= tributary_journal::limits::FRAME_BYTES;
        if full || self.frame.count() >= FRAME_LETTERS || !self.frame.fits(bytes.len()) {
            self.flush()?;
        }
        let pushed = self.frame.push(ENTRY_DEAD_LETTER, &bytes);
        pushed.expect("a message and its reason are smaller than an entry may be");
        self.waiting.add(self.counting.load(letter, readings));
        self.open_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was pushed durable, or gives it up when there is no room: dead letters hold up
    /// nothing else.
    ///
    /// # Errors
    /// When the disk fails; what was pushed stays, and may be flushed again.
    pub fn flush(&mut self) -> Result<(), LogError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let appended = match self.writer.append(&self.frame) {
            Err(error) if error.is_full() => self.writer.append_reserved(&self.frame),
            decided => decided,
        };
        match appended {
            Err(error) if !error.is_full() => return Err(error),
            Err(error) => {
                let letters = self.frame.count();
                warn!(letters, %error, "there is no room for dead letters: they are given up");
                count(self.waiting);
                self.lost.add(self.waiting);
            }
            Ok(_) => {}
        }
        self.frame.clear();
        self.waiting = Load::default();
        Ok(())
    }

    /// Takes what could not be had for lack of room: nothing came for a while.
    pub fn prepare(&mut self) {
        self.dropped.prepare(LETTERS_SLOTS_FREE_BYTES);
    }

    /// The letters that are durable, oldest first: the log to read them from.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// Counts what found no room, and gives up the oldest letters if those that come next would
    /// find none. All lanes cover what was read, everything before `covered`.
    pub fn make_room(&mut self, covered: Origin) {
        if std::mem::take(&mut self.open_bytes) == 0 {
            return;
        }
        self.dropped.prepare(LETTERS_SLOTS_FREE_BYTES);
        let mut load = Load {
            tally: self.lost.tally,
            owed: None,
        };
        let oldest = self.lacks_room().then(|| self.oldest()).flatten();
        let goes = oldest.map(|oldest| (self.load_of(&oldest), oldest));
        let below = goes.as_ref().map(|(more, oldest)| {
            load.add(*more);
            LetterId {
                life: oldest.life,
                number: oldest.end,
            }
        });
        if (load.tally.is_none() && below.is_none()) || !self.dropped.count(load, below, covered) {
            return;
        }
        self.lost.tally = None;
        if let Some((load, below)) = goes.map(|(load, _)| load).zip(below) {
            count(load);
            if let Err(error) = self.reader.trim(below.life, below.number) {
                warn!(%error, "what was given up of dead letters stays for now");
            }
        }
    }

    /// Whether what comes until the next time may find no room. A segment is taken ahead if one
    /// can be had.
    fn lacks_room(&mut self) -> bool {
        let room = self.writer.room_bytes();
        room < self.segment_bytes / LETTERS_ROOM_PART
            && self.writer.prepare(1).is_err_and(|error| error.is_full())
    }

    /// The oldest segment, if one can go.
    fn oldest(&self) -> Option<SegmentInfo> {
        let segments = self.reader.segments();
        let oldest = segments.iter().find(|s| s.first < s.end)?;
        // The newest of the life that is written stays.
        let of_life = segments.iter().filter(|s| s.life == oldest.life);
        (oldest.life != self.present || of_life.count() > 1).then(|| oldest.clone())
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
                    load.add(self.counting.load(&letter, None));
                }
            }
            first = end;
        }
        load
    }
}

/// Tells of what is given up.
fn count(load: Load) {
    let letters = load.tally.map_or(0, |tally| tally.letters);
    let readings = load.owed.map_or(0, |owed| owed.readings());
    counter!("tributary_agent_dead_letters_dropped_total").increment(letters);
    counter!("tributary_agent_dead_letters_dropped_readings_total").increment(readings);
}

/// How letters are counted that are given up.
#[derive(Debug)]
struct Counting {
    rules: Arc<Rules>,
    put_back: PutBack,
    rows: Rows,
}

impl Counting {
    fn load(&mut self, letter: &Letter<'_>, readings: Option<u64>) -> Load {
        let owed = match letter.holds_readings() {
            true => readings.or_else(|| self.decode(letter)),
            false => None,
        };
        Load {
            tally: Some(Tally::one(letter.received_time)),
            owed: owed.map(|readings| Refused::one(readings, letter.received_time)),
        }
    }

    /// How many readings a letter holds, by the present rules.
    fn decode(&mut self, letter: &Letter<'_>) -> Option<u64> {
        let message = Incoming {
            topic: letter.topic,
            properties: letter.properties,
            payload: letter.payload,
            received_time: letter.received_time,
        };
        let decoded = self.rules.decode(&message, &mut self.rows);
        decoded.ok().map(|_| self.rows.len() as u64)
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
            dead.push(&at(number), None).unwrap();
        }
        dead.flush().unwrap();
        drop(dead);
        // Power fails before a lane covers 3; 4 was in no frame yet.
        let mut dead = open(2, Some(3));
        assert!(!dead.holds(at(2).origin), "is covered: nobody asks for it");
        for number in [3, 4, 5].into_iter().chain(1_000..2_001) {
            dead.push(&at(number), None).unwrap();
        }
        dead.flush().unwrap();
        let mut all = kept(&dead);
        assert_eq!(all.len(), 1_006, "nothing twice");
        all.sort_unstable();
        let expected: Vec<u64> = (1..=5).chain(1_000..2_001).collect();
        assert_eq!(all, expected, "nothing lost");
    }

    /// A letter with readings, as one that found no room among the series.
    fn large(number: u64, payload: &[u8]) -> Letter<'_> {
        Letter {
            word: "series",
            payload,
            ..at(number)
        }
    }

    /// Pushes letters of one reading each, as the stage does, which covers them each time; how
    /// many readings are declared.
    fn fill(dead: &mut DeadLetters, numbers: std::ops::Range<u64>) -> u64 {
        let payload = format!("{{\"a\":\"{}\"}}", "x".repeat(60_000));
        let mut declared = 0;
        for number in numbers {
            dead.push(&large(number, payload.as_bytes()), Some(1))
                .unwrap();
            dead.flush().unwrap();
            let under = at(number + 1).origin;
            declared += dead.declare(under).map_or(0, |lost| lost.readings());
            dead.make_room(under);
        }
        declared
    }

    fn open(disk: &Arc<dyn Disk>, life: u64) -> DeadLetters {
        DeadLetters::open(disk, Path::new("/dead"), BufferId::new(life, 1), 0).unwrap()
    }

    #[test]
    fn a_disk_without_a_free_block_holds_up_nothing() {
        let sim = SimDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let mut dead = open(&disk, 1);
        fill(&mut dead, 0..1);
        sim.set_full(true);
        let declared = fill(&mut dead, 1..200);
        let kept = kept(&dead);
        assert_eq!(kept.last(), Some(&199), "the newest are kept");
        assert!((30..200).contains(&kept.len()), "{}", kept.len());
        let owed = dead
            .declare(at(201).origin)
            .map_or(0, |lost| lost.readings());
        assert_eq!(declared + owed + kept.len() as u64, 200);
    }

    /// As a version before this one left it: many letters, and nothing to count them in.
    #[test]
    fn without_a_block_for_the_count_what_comes_is_declared_and_nothing_waits() {
        let sim = SimDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let mut dead = open(&disk, 1);
        fill(&mut dead, 0..150);
        drop(dead);
        disk.remove(Path::new("/dead.dropped")).unwrap();
        sim.set_full(true);
        let mut dead = open(&disk, 2);
        let declared = fill(&mut dead, 150..400);
        let held = kept(&dead);
        assert_eq!(declared + held.len() as u64, 400);
        assert_eq!(
            held[..150],
            (0..150).collect::<Vec<u64>>(),
            "none that is kept goes"
        );
        // There is room once more, and then none: now they can be counted.
        sim.set_full(false);
        dead.prepare();
        sim.set_full(true);
        let more = fill(&mut dead, 400..600);
        let owed = dead
            .declare(at(601).origin)
            .map_or(0, |lost| lost.readings());
        let held = kept(&dead);
        assert_eq!(declared + more + owed + held.len() as u64, 600);
        assert_eq!(held.last(), Some(&599), "the newest are kept");
        let tally = dropped::look(Arc::clone(&disk), Path::new("/dead"));
        let tally = tally.unwrap().unwrap();
        assert_eq!(tally.letters + held.len() as u64, 600);
    }
}
