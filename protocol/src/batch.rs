//! Sealed batches: sealed once, moved many times.
//!
//! [`SealedBatch::open`] is the one door for bytes from disk or network, [`Sealer`] the one that
//! makes new ones. A batch never changes after that; its hash is its proof. What may be sent or
//! stored when is not decided here.

mod columns;
mod delays;
mod distinct;
mod envelope;
mod marks;
mod numbers;
mod order;
mod pack;
mod scale;
mod seal;
mod states;
mod symbols;
mod times;

use crate::ids::{BatchHash, BatchKey, BufferId, Lane, SeriesId};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_COVERS_MAX, BATCH_READINGS_MAX, BODY_RAW_BYTES_MAX,
    GAP_DETAIL_BYTES_MAX, GAP_NUMBERS_MAX, NUMBER_MAX, SERIES_MAX, SERIES_PER_BATCH_MAX,
};
use crate::reading::Readings;
use crate::series::{NameError, SeriesDef};
use bytes::Bytes;
use columns::{ColumnReader, Expected};
use pack::Unpacker;
use std::ops::Range;
use std::sync::Arc;

pub use seal::Sealer;

/// What a batch holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Readings, in the decoded order.
    Readings = 0,
    /// Definitions of series.
    Series = 1,
    /// A declared loss.
    Gap = 2,
}

/// How the columns of a body are coded. Retired codes are never used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Codec {
    /// As they are, where zstd would not shorten them.
    Stored = 0,
    /// Under zstd.
    Zstd = 1,
}

/// Messages of the write-ahead log, `first .. first + count`, of one origin buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cover {
    /// The buffer in whose write-ahead log they stand.
    pub buffer: BufferId,
    /// Number of the first message.
    pub first: u64,
    /// How many messages.
    pub count: u64,
}

/// Everything about a batch to be sealed but its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    /// Its name.
    pub key: BatchKey,
    /// When it is sealed: microseconds since 1970, UTC.
    pub sealed_at: i64,
    /// How many series of its buffer must be known to name what is in it.
    pub series_needed: u32,
    /// The messages that it covers.
    pub covers: Vec<Cover>,
}

/// Why readings are lost, or stand elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum GapReason {
    /// Storage was full; the policy gave these up.
    Shed = 1,
    /// Storage damaged them.
    Damaged = 2,
    /// They were refused after they had been acknowledged.
    Refused = 3,
    /// They are held under another number: nothing is lost.
    Repeat = 4,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Shed, Self::Damaged, Self::Refused, Self::Repeat];

    /// The reason as the lake and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::Damaged => "damaged",
            Self::Refused => "refused",
            Self::Repeat => "repeat",
        }
    }

    /// The reason's code on the wire and on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// A declared loss: batch numbers, and what they would have held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The first number.
    pub first: u64,
    /// How many numbers.
    pub count: u64,
    /// How many readings; none: unknown.
    pub readings: Option<u64>,
    /// Earliest event time: microseconds since 1970, UTC.
    pub event_first: i64,
    /// Latest event time: microseconds since 1970, UTC.
    pub event_last: i64,
    /// Why.
    pub reason: GapReason,
    /// What else there is to say, in words.
    pub detail: String,
    /// How many readings under each number, as far as that is known; empty: not known apart.
    pub each: Vec<Option<u32>>,
}

/// Some numbers of a gap, and the readings under them; none: unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapPart {
    /// The first number.
    pub first: u64,
    /// How many numbers.
    pub count: u64,
    /// How many readings.
    pub readings: Option<u64>,
}

/// Why bytes are no batch, or a batch cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// Longer than any batch may be.
    #[error("a batch of {0} bytes; at most {BATCH_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The FlatBuffers envelope is broken.
    #[error("the batch's envelope is no valid FlatBuffer: {0}")]
    Envelope(String),
    /// A kind that this build does not know.
    #[error("batch kind {0} is unknown: update the aggregator before its agents")]
    Kind(u8),
    /// A codec that this build does not know.
    #[error("body codec {0} is unknown: update the aggregator before its agents")]
    Codec(u8),
    /// The head says what cannot be.
    #[error("the batch's head is wrong: {0}")]
    Head(&'static str),
    /// The body is broken.
    #[error("the batch's body is wrong: column `{column}` {problem}")]
    Body {
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A series has a name that none may have.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl From<symbols::Flaw> for BatchError {
    fn from(flaw: symbols::Flaw) -> Self {
        Self::Body {
            column: flaw.column,
            problem: flaw.problem,
        }
    }
}

impl From<pack::Unpackable> for BatchError {
    fn from(wrong: pack::Unpackable) -> Self {
        Self::Body {
            column: "zstd",
            problem: wrong.0,
        }
    }
}

/// Why something cannot be sealed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// There is nothing to seal.
    #[error("a batch without readings or definitions")]
    Empty,
    /// More rows than a batch may have: seal them in parts.
    #[error("{rows} rows in one batch; at most {max} are allowed")]
    TooMany {
        /// Rows that were given.
        rows: usize,
        /// Rows that are allowed.
        max: usize,
    },
    /// More bytes than a batch may have: seal it in parts.
    #[error("a sealed batch of {0} bytes; at most {BATCH_BYTES_MAX} are allowed: seal it in parts")]
    TooLong(usize),
    /// Rows of one series differ in type.
    #[error("the values of series {} are of different types", .0.0)]
    MixedTypes(SeriesId),
    /// A series that the batch does not say it needs.
    #[error("series {} stands beyond the {needed} that the batch says it needs", .series.0)]
    Series {
        /// The series.
        series: SeriesId,
        /// What [`Spec::series_needed`] said.
        needed: u32,
    },
    /// A device sequence number is negative.
    #[error("device sequence number {0}: it must not be negative")]
    Sequence(i64),
    /// A text holds U+0000.
    #[error("a text value holds U+0000, which PostgreSQL and others cannot store")]
    Text,
    /// The specification or the gap says what cannot be.
    #[error("the batch cannot be sealed: {0}")]
    Head(&'static str),
    /// A series has a name that none may have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What was sealed does not open again.
    #[error("a sealed batch does not open: {0}")]
    Unreadable(#[from] BatchError),
    /// What was sealed opens as something else.
    #[error("a sealed batch opens as something else than was put in")]
    Differs,
}

/// The head of a batch, copied out of its envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    key: BatchKey,
    kind: Kind,
    codec: Codec,
    rows: u32,
    event_first: i64,
    event_last: i64,
    sealed_at: i64,
    series_needed: u32,
    raw_bytes: usize,
}

impl Head {
    /// Checks what a head alone can tell.
    fn check(&self) -> Result<(), &'static str> {
        if self.key.number > NUMBER_MAX {
            return Err("its number is too great");
        }
        if self.series_needed as usize > SERIES_MAX {
            return Err("it needs more series than a buffer may have");
        }
        if self.raw_bytes > BODY_RAW_BYTES_MAX {
            return Err("its body is larger than allowed before compression");
        }
        let (least, most) = match self.kind {
            Kind::Readings => (1, BATCH_READINGS_MAX),
            Kind::Series => (1, SERIES_PER_BATCH_MAX),
            Kind::Gap => (0, 0),
        };
        if !(least..=most).contains(&(self.rows as usize)) {
            return Err("it has no rows, or too many");
        }
        match (self.kind, self.key.lane) {
            (Kind::Series, lane) if lane != Lane::Series => Err("definitions in another lane"),
            (Kind::Readings, Lane::Series) => Err("readings in the lane `series`"),
            _ => Ok(()),
        }
    }

    /// The least series number that may not stand in the batch. What `alerts`, `aggregates` and
    /// `events` hold may name itself, and need no series at all; without names, nobody can say what
    /// it is.
    fn series_end(&self, names: usize) -> u32 {
        match (self.may_name_itself(), names) {
            (true, 0) => SERIES_MAX as u32,
            (true, names) => names as u32,
            (false, _) => self.series_needed,
        }
    }

    /// Whether the names of its series may stand in the batch itself.
    fn may_name_itself(&self) -> bool {
        let lane = self.key.lane.may_name_itself();
        lane && self.kind == Kind::Readings && self.series_needed == 0
    }

    /// Checks names that stand in the batch itself.
    fn check_names(&self, names: usize) -> Result<(), &'static str> {
        if names > SERIES_PER_BATCH_MAX {
            return Err("it names too many series");
        }
        match names == 0 || self.may_name_itself() {
            true => Ok(()),
            false => Err("it names series, which only `alerts`, `aggregates` and `events` do"),
        }
    }
}

fn check_covers(covers: &[Cover]) -> Result<(), &'static str> {
    if covers.len() > BATCH_COVERS_MAX {
        return Err("it covers messages of too many buffers");
    }
    let end = |cover: &Cover| cover.first.checked_add(cover.count);
    match covers
        .iter()
        .all(|cover| end(cover).is_some_and(|end| end <= NUMBER_MAX))
    {
        true => Ok(()),
        false => Err("it covers messages whose number is too great"),
    }
}

impl Gap {
    fn check(&self) -> Result<(), &'static str> {
        if self
            .first
            .checked_add(self.count)
            .is_none_or(|end| end > NUMBER_MAX)
        {
            return Err("the gap's numbers are too great");
        }
        if self.event_first > self.event_last {
            return Err("the gap's time range is reversed");
        }
        if self.detail.len() > GAP_DETAIL_BYTES_MAX || self.detail.contains('\0') {
            return Err("the gap's detail is too long, or holds U+0000");
        }
        if self.each.is_empty() {
            return Ok(());
        }
        if self.each.len() as u64 != self.count || self.each.len() > GAP_NUMBERS_MAX {
            return Err("the gap does not tell the readings of as many numbers as it has");
        }
        if sum_of(&self.each) != self.readings {
            return Err("the gap's readings are not those of its numbers");
        }
        Ok(())
    }

    /// What is lost where only the numbers of `runs`, of those that it has, are lost: each run by
    /// itself, and cut where the readings are known before and unknown behind. Whatever the runs,
    /// known readings are counted exactly once.
    pub fn parts(&self, runs: &[Range<u64>]) -> Vec<GapPart> {
        let mut parts = Vec::new();
        for run in runs.iter().filter(|run| !run.is_empty()) {
            let at = |number: u64| usize::try_from(number.checked_sub(self.first)?).ok();
            let each = at(run.start).zip(at(run.end));
            let Some(each) = each.and_then(|(from, to)| self.each.get(from..to)) else {
                let whole = run.start == self.first && run.end - run.start == self.count;
                parts.push(GapPart {
                    first: run.start,
                    count: run.end - run.start,
                    readings: self.readings.filter(|_| whole),
                });
                continue;
            };
            let mut first = run.start;
            for alike in each.chunk_by(|a, b| a.is_some() == b.is_some()) {
                let count = alike.len() as u64;
                let readings = sum_of(alike);
                parts.push(GapPart {
                    first,
                    count,
                    readings,
                });
                first += count;
            }
        }
        parts
    }
}

/// The sum, if every count is known.
fn sum_of(each: &[Option<u32>]) -> Option<u64> {
    each.iter().map(|count| count.map(u64::from)).sum()
}

/// A batch whose envelope, head and bounds are in order. Its body is not decoded yet.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    bytes: Bytes,
    hash: BatchHash,
    head: Head,
    covers: Arc<[Cover]>,
    body: Bytes,
    gap: Option<Arc<Gap>>,
    names: Option<Arc<[SeriesDef]>>,
    shared: bool,
}

impl PartialEq for SealedBatch {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for SealedBatch {}

impl SealedBatch {
    /// Takes bytes from disk or network as a batch: checks the envelope, the head, every bound.
    ///
    /// # Errors
    /// What is wrong first. Whether the body decodes only [`decode`](Self::decode) tells.
    pub fn open(bytes: Bytes) -> Result<Self, BatchError> {
        envelope::open(bytes)
    }

    /// The sealed bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// BLAKE3 over the sealed bytes.
    pub fn hash(&self) -> BatchHash {
        self.hash
    }

    /// The batch's name.
    pub fn key(&self) -> BatchKey {
        self.head.key
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.head.kind
    }

    /// How many readings or definitions it holds; none for a gap.
    pub fn rows(&self) -> u32 {
        self.head.rows
    }

    /// Earliest event time: microseconds since 1970, UTC. Of definitions, when they were sealed.
    pub fn event_first(&self) -> i64 {
        self.head.event_first
    }

    /// Latest event time: microseconds since 1970, UTC. Of definitions, when they were sealed.
    pub fn event_last(&self) -> i64 {
        self.head.event_last
    }

    /// When it was sealed: microseconds since 1970, UTC.
    pub fn sealed_at(&self) -> i64 {
        self.head.sealed_at
    }

    /// How many series of its buffer must be known to name what is in it.
    pub fn series_needed(&self) -> u32 {
        self.head.series_needed
    }

    /// Whether other batches of its lane hold readings of the messages that it covers, too.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The messages that it covers.
    pub fn covers(&self) -> &[Cover] {
        &self.covers
    }

    /// What the series in it are called, by number, where it says so itself; otherwise nothing.
    pub fn names(&self) -> &[SeriesDef] {
        self.names.as_deref().unwrap_or_default()
    }

    /// What it declares lost; nothing unless it is a gap.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_deref()
    }

    /// The numbers of its lane that it stands for: its own, and those that a gap replaces.
    pub fn numbers(&self) -> Range<u64> {
        let number = self.head.key.number;
        let replaced = self.gap.as_ref().filter(|gap| gap.first == number);
        number..number + replaced.map_or(1, |gap| gap.count.max(1))
    }

    /// Decodes the body. Total on any bytes: what it allocates is bounded by `limits`.
    ///
    /// # Errors
    /// [`BatchError::Body`] with the column that is wrong, [`BatchError::Name`].
    pub fn decode(&self, decoder: &mut Decoder) -> Result<Content, BatchError> {
        if let Some(gap) = &self.gap {
            return Ok(Content::Gap(Gap::clone(gap)));
        }
        let Decoder { unpacker, columns } = decoder;
        let (bits, packed) = match self.head.kind {
            Kind::Readings => envelope::split_bits(&self.body)?,
            _ => (&[][..], &self.body[..]),
        };
        let tokens = match self.head.codec {
            Codec::Stored if packed.len() != self.head.raw_bytes => {
                return Err(BatchError::Head("its body is not as long as it says"));
            }
            Codec::Stored => packed,
            Codec::Zstd => unpacker.unpack(packed, self.head.raw_bytes)?,
        };
        if self.head.kind == Kind::Series {
            return envelope::read_series(tokens, self.head.rows);
        }
        let expected = Expected {
            rows: self.head.rows as usize,
            event_first: self.head.event_first,
            event_last: self.head.event_last,
            series_end: self.head.series_end(self.names().len()),
        };
        Ok(Content::Readings(columns.read(tokens, bits, expected)?))
    }
}

/// What a batch holds, decoded.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// Readings in the decoded order: by series, then event time, then arrival.
    Readings(Readings),
    /// Definitions of the series `base` and on.
    Series {
        /// Number of the first one.
        base: u32,
        /// The definitions.
        defs: Vec<SeriesDef>,
    },
    /// A declared loss.
    Gap(Gap),
}

/// Scratch for [`SealedBatch::decode`], to be used again and again.
pub struct Decoder {
    unpacker: Unpacker,
    columns: ColumnReader,
}

impl Decoder {
    /// A decoder.
    pub fn new() -> Self {
        Self {
            unpacker: Unpacker::new(),
            columns: ColumnReader::default(),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads columns as they stand below zstd, which a fuzzer does not get through by itself.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn fuzz_columns(rows: u16, event_span: u64, tokens: &[u8], bits: &[u8]) -> Option<Readings> {
    let expected = Expected {
        rows: usize::from(rows).min(BATCH_READINGS_MAX),
        event_first: 1_780_000_000_000_000,
        event_last: 1_780_000_000_000_000i64.saturating_add_unsigned(event_span),
        series_end: SERIES_MAX as u32,
    };
    ColumnReader::default().read(tokens, bits, expected).ok()
}

#[cfg(test)]
mod tests;
