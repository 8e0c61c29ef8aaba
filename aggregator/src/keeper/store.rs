//! The keeper's files: journal, checkpoints, and how both become ledger and books again.
//!
//! A checkpoint holds ledger and books as they are after all entries below a position. Recovery
//! takes the newest valid one that meets the journal, and the entries after it. A segment goes
//! only when it lies below the older of two checkpoints and below every sink.

use super::books::Books;
use super::record::{self, HeldRecord, RecordKind};
use super::snapshot::{self, SnapshotError};
use crate::limits::{REPLAY_READ_BYTES, UNREAD_RUNS_MAX};
use bytes::{Buf, BufMut};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::limits::CHECKPOINTS_KEPT;
use tributary_journal::{
    Appended, CheckpointError, Checkpoints, Disk, Entry, Frame, LifeId, Log, LogConfig, LogError,
    LogReader, LogWriter, Open,
};
use tributary_planted::planted;
use tributary_protocol::batch::{Content, Decoder, Kind, SealedBatch};
use tributary_protocol::ids::LogId;
use tributary_protocol::ledger::{Covering, Ledger};

/// Why the keeper does not open.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The journal does not open.
    #[error("journal: {0}")]
    Journal(#[from] LogError),
    /// The checkpoints do not open.
    #[error("checkpoints: {0}")]
    Checkpoints(#[from] CheckpointError),
    /// What is left of the journal begins after everything that is known about its past.
    #[error(
        "the journal in {} begins at entry {first}, and no valid checkpoint reaches it: the \
         ledger would forget what it holds; put the checkpoints back from a copy, or let \
         `tributary-aggregator restore` begin a journal that knows what the lake has",
        dir.display()
    )]
    NoCheckpoint {
        /// The journal's folder.
        dir: PathBuf,
        /// Its first entry.
        first: u64,
    },
    /// There are checkpoints of a journal, and no journal.
    #[error(
        "the journal in {} is empty, but checkpoints of journal {log} lie in {}: put the journal \
         back from a copy, or let `tributary-aggregator restore` begin one that knows what the \
         lake has",
        dir.display(), ledger.display()
    )]
    JournalGone {
        /// The journal's folder.
        dir: PathBuf,
        /// The folder of the checkpoints.
        ledger: PathBuf,
        /// The journal that they belong to.
        log: LogId,
    },
    /// The journal ends before what was known.
    #[error(
        "the journal in {} ends at entry {end}, its checkpoint stands at {checkpoint}: the \
         journal was rolled back (log_rolled_back); put it back from a copy, or let \
         `tributary-aggregator restore` begin one that knows what the lake has",
        dir.display()
    )]
    RolledBack {
        /// The journal's folder.
        dir: PathBuf,
        /// Where it ends.
        end: u64,
        /// Where the checkpoint stands.
        checkpoint: u64,
    },
}

/// What recovery found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Where the checkpoint stood.
    pub from: u64,
    /// Entries read after it.
    pub entries: u64,
    /// Entries that could not be read or understood.
    pub damaged: u64,
    /// Batches that stood in the journal twice.
    pub doubled: u64,
}

/// Journal and checkpoints, open.
pub struct Store {
    writer: LogWriter,
    reader: LogReader,
    checkpoints: Checkpoints,
    life: LifeId,
    /// Positions of the last valid checkpoints, oldest first, at most two.
    positions: Vec<u64>,
    /// First entry of the segment that was written last.
    segment: Option<u64>,
    /// Entries that recovery could not read, and perhaps some between them.
    unread: Vec<Range<u64>>,
}

impl Store {
    /// Opens the journal in `dir/journal` and the checkpoints in `dir/ledger`, and recovers.
    ///
    /// # Errors
    /// When files and promises do not fit together; what to do stands in the message.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        new_log: LogId,
    ) -> Result<(Self, Ledger, Books, Recovered), StoreError> {
        let journal_dir = dir.join("journal");
        let open = Open::SameLife {
            if_empty: LifeId(new_log.0),
        };
        let opened = Log::open(Arc::clone(disk), &journal_dir, config, open)?;
        let checkpoints = Checkpoints::open(Arc::clone(disk), &dir.join("ledger"), "ledger")?;
        let (writer, reader) = (opened.writer, opened.reader);
        let life = writer.life();
        let mut store = Self {
            writer,
            reader,
            checkpoints,
            life,
            positions: Vec::new(),
            segment: None,
            unread: Vec::new(),
        };
        let (ledger, books, from) = store.newest(dir)?;
        let mut replay = Replay {
            ledger,
            books,
            decoder: Decoder::new(),
            found: Recovered::default(),
            unread: Vec::new(),
        };
        replay.found.from = from;
        replay.run(&store.reader, life, from, store.end())?;
        store.unread = replay.unread;
        Ok((store, replay.ledger, replay.books, replay.found))
    }

    /// Ledger and books of the newest valid checkpoint that meets the journal.
    fn newest(&mut self, dir: &Path) -> Result<(Ledger, Books, u64), StoreError> {
        let (dir, ledger) = (dir.join("journal"), dir.join("ledger"));
        let (first, end) = (self.first(), self.end());
        let (mut newest, mut other) = (None, None);
        for checkpoint in self.checkpoints.valid() {
            match decode(self.life, &checkpoint.body) {
                Ok(Of::This(ledger, books, position)) => {
                    self.positions.insert(0, position);
                    newest.get_or_insert((ledger, books, position));
                }
                Ok(Of::Other(log)) => other = other.or(Some(log)),
                Err(error) => tracing::error!(%error, "a checkpoint is not usable"),
            }
        }
        self.keep_last_positions();
        match newest {
            Some((_, _, checkpoint)) if checkpoint > end => Err(StoreError::RolledBack {
                dir,
                end,
                checkpoint,
            }),
            Some(found) if found.2 >= first => Ok(found),
            None if let (0, Some(log)) = (end, other) => {
                Err(StoreError::JournalGone { dir, ledger, log })
            }
            None if first == 0 => Ok((Ledger::new(), Books::new(), 0)),
            _ => Err(StoreError::NoCheckpoint { dir, first }),
        }
    }

    /// The life of the journal.
    pub fn log(&self) -> LogId {
        LogId(self.life.0)
    }

    /// A reader of the journal, for a sink.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// One past the last durable entry.
    pub fn end(&self) -> u64 {
        self.writer.next_number()
    }

    /// The first entry that is still there; the end of an empty journal.
    fn first(&self) -> u64 {
        let lives = self.reader.lives();
        let span = lives.iter().find(|span| span.life == self.life);
        span.map_or(self.end(), |span| span.first)
    }

    /// Makes a frame durable.
    ///
    /// # Errors
    /// As [`LogWriter::append`]: nothing of it counts then.
    pub fn append(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        self.writer.append(frame)
    }

    /// Entries that recovery could not read, in runs.
    pub fn unread(&self) -> &[Range<u64>] {
        &self.unread
    }

    /// Whether a segment was begun since the last call.
    pub fn segment_began(&mut self) -> bool {
        let segments = self.reader.segments();
        let newest = segments.iter().filter(|segment| segment.life == self.life);
        let newest = newest.map(|segment| segment.first).max();
        std::mem::replace(&mut self.segment, newest) != newest
    }

    /// Where the newest checkpoint stands.
    pub fn newest_checkpoint(&self) -> u64 {
        self.positions.last().copied().unwrap_or(0)
    }

    /// Writes a checkpoint of ledger and books, which hold all entries below the end.
    ///
    /// # Errors
    /// When it cannot be written; nothing is trimmed then.
    pub fn checkpoint(&mut self, ledger: &Ledger, books: &Books) -> Result<(), CheckpointError> {
        let position = self.end();
        let mut head = Vec::with_capacity(24);
        head.put_slice(&self.life.0);
        head.put_u64_le(position);
        let body = snapshot::encode(ledger, books);
        self.checkpoints.write_parts(&[&head, &body])?;
        self.positions.push(position);
        self.keep_last_positions();
        Ok(())
    }

    /// A kill between the writing of a checkpoint and the removal of the oldest leaves three.
    fn keep_last_positions(&mut self) {
        let surplus = self.positions.len().saturating_sub(CHECKPOINTS_KEPT);
        self.positions.drain(..surplus);
    }

    /// Whether the journal finds no room for its next segment.
    pub fn is_short(&self) -> bool {
        self.reader.is_short()
    }

    /// Gives up the segments below the older of two checkpoints and below `sinks`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn trim(&self, sinks: u64) -> Result<u64, LogError> {
        match self.positions.as_slice() {
            [.., newest] if planted!(Blind8) => self.reader.trim(self.life, sinks.min(*newest)),
            [.., older, _] if planted!(TrimmedBeyondLake) => self.reader.trim(self.life, *older),
            [.., older, _] => self.reader.trim(self.life, sinks.min(*older)),
            _ => Ok(0),
        }
    }
}

/// What a checkpoint is of.
enum Of {
    /// This journal: ledger and books as they are at the position.
    This(Ledger, Books, u64),
    /// Another one.
    Other(LogId),
}

/// The ledger in the body of a checkpoint and its position, if it is one of this journal.
pub(crate) fn checkpoint_of(
    log: LogId,
    body: &[u8],
) -> Result<Option<(Ledger, u64)>, SnapshotError> {
    match decode(LifeId(log.0), body)? {
        Of::This(ledger, _, position) => Ok(Some((ledger, position))),
        Of::Other(_) => Ok(None),
    }
}

/// The books in the body of a checkpoint, of whichever journal it is.
pub(crate) fn books_of(body: &[u8]) -> Option<Books> {
    let life = body.get(..16)?.try_into().ok()?;
    match decode(LifeId(life), body) {
        Ok(Of::This(_, books, _)) => {
            // Nothing in the new journal is known to be theirs yet.
            books.touch_all(0);
            Some(books)
        }
        _ => None,
    }
}

fn decode(life: LifeId, body: &[u8]) -> Result<Of, SnapshotError> {
    let Some((head, body)) = body.split_at_checked(24) else {
        return Err(SnapshotError::Truncated);
    };
    let (of, mut position) = head.split_at(16);
    if of != life.0 {
        let of = of.try_into().map_err(|_| SnapshotError::Truncated)?;
        return Ok(Of::Other(LogId(of)));
    }
    let position = position.try_get_u64_le()?;
    let (ledger, books) = snapshot::decode(body)?;
    books.touch_all(position);
    Ok(Of::This(ledger, books, position))
}

/// Entries on their way back into ledger and books.
struct Replay {
    ledger: Ledger,
    books: Books,
    decoder: Decoder,
    found: Recovered,
    unread: Vec<Range<u64>>,
}

impl Replay {
    /// These entries cannot be read. Where there are too many runs of them, those between the last
    /// two count as well: a ledger that holds what it is told again does not mind.
    fn miss(&mut self, numbers: Range<u64>) {
        self.found.damaged += numbers.end - numbers.start;
        let full = self.unread.len() >= UNREAD_RUNS_MAX;
        match self.unread.last_mut() {
            Some(last) if full || last.end == numbers.start => last.end = numbers.end,
            _ => self.unread.push(numbers),
        }
    }

    fn run(
        &mut self,
        reader: &LogReader,
        life: LifeId,
        from: u64,
        end: u64,
    ) -> Result<(), StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = from;
        while next < end {
            entries.clear();
            match reader.read(life, next, REPLAY_READ_BYTES, &mut entries) {
                Ok(()) => {}
                Err(LogError::Damaged { numbers, .. }) => {
                    next = numbers.end;
                    self.miss(numbers);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let Some(last) = entries.last() else { break };
            next = last.number + 1;
            for entry in entries.drain(..) {
                self.found.entries += 1;
                self.take(entry);
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: Entry) {
        let number = entry.number;
        let taken = match RecordKind::from_code(entry.kind) {
            Some(RecordKind::Held) => self.take_held(entry),
            Some(kind) if kind.is_batch() => self.take_batch(entry, kind),
            _ => return,
        };
        let Err(reason) = taken else { return };
        self.miss(number..number + 1);
        tracing::error!(number, reason, "a journal entry cannot be understood");
    }

    fn take_held(&mut self, entry: Entry) -> Result<(), String> {
        let record = HeldRecord::parse(entry.bytes).map_err(|error| error.to_string())?;
        for run in record.runs {
            self.ledger.recover_run(&record.agent, record.key, run);
        }
        Ok(())
    }

    fn take_batch(&mut self, entry: Entry, kind: RecordKind) -> Result<(), String> {
        let number = entry.number;
        let record = record::parse(kind, entry.bytes).map_err(|error| error.to_string())?;
        let batch = SealedBatch::open(record.sealed).map_err(|error| error.to_string())?;
        let key = batch.key();
        match (batch.kind(), kind) {
            (Kind::Series, RecordKind::Quarantined) => self.books.tear(&record.agent, key.buffer),
            (Kind::Series, _) => {
                // Before its number is held: the agent sends again what is not in the book.
                let content = batch.decode(&mut self.decoder);
                let content = content.map_err(|error| error.to_string())?;
                if let Content::Series { base, defs } = content {
                    let added = self.books.append(&record.agent, key.buffer, base, &defs);
                    added.map_err(|error| error.to_string())?;
                }
            }
            (Kind::Readings | Kind::Gap, _) => {}
        }
        let hash = batch.hash();
        let new = match kind {
            RecordKind::Gap => {
                let gap = (hash, record.runs.as_slice());
                self.ledger.recover_gap(&record.agent, key, gap)
            }
            _ => self.ledger.recover(&record.agent, key, hash),
        };
        match (new, kind) {
            (false, _) => self.found.doubled += 1,
            (true, RecordKind::Quarantined) => {}
            (true, _) => {
                let covering = Covering::of(&batch);
                self.ledger.recover_covering(&record.agent, key, &covering);
            }
        }
        self.books.touch(&record.agent, key.buffer, number + 1);
        Ok(())
    }
}
