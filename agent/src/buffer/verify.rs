//! Whether everything in the logs can be read back: each frame, each sealed batch and its content.
//! It declares and mends nothing.

use super::{BufferError, Met, Opened, View, Which, spans, walk};
use crate::deadletter::Letter;
use crate::limits::{BUFFER_FAULTS_MAX, BUFFER_TRIES};
use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use tributary_journal::{Entry, LifeId};
use tributary_protocol::batch::{Decoder, SealedBatch};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey};

/// Something that can't be read back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fault {
    /// The folder of the log.
    pub log: String,
    /// The file, as far as it is one's.
    pub file: String,
    /// From which byte on; nothing where a whole batch is meant.
    pub offset: Option<u64>,
    /// How many bytes; 0 where a whole batch is meant.
    pub bytes: u64,
    /// Which life.
    pub buffer: String,
    /// The first number.
    pub first: u64,
    /// One past the last; equal to the first where nobody knows how many there were.
    pub end: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            log,
            file,
            buffer,
            first,
            end,
            what,
            ..
        } = self;
        write!(f, "{log}/{file}")?;
        if let Some(offset) = self.offset {
            write!(f, ", byte {offset}")?;
        }
        match first < end {
            true => write!(f, ": {buffer} {first}..{end}: {what}"),
            false => write!(
                f,
                ": {buffer} from {first} on, nobody knows how many: {what}"
            ),
        }
    }
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Verified {
    /// Entries that were read.
    pub entries: u64,
    /// Batches among them that were decoded.
    pub batches: u64,
    /// Readings in them.
    pub readings: u64,
    /// Entries that the agent let go of meanwhile.
    pub gone: u64,
    /// What can't be read, or is gone, and nothing says so; not all where there are very many.
    pub faults: Vec<Fault>,
    /// How many more of them.
    pub faults_more: u64,
    /// What can't be read, and was acknowledged, is declared lost already, or lies there twice.
    pub declared: Vec<Fault>,
}

impl Verified {
    /// Whether nothing is wrong but what is declared.
    pub fn is_well(&self) -> bool {
        self.faults.is_empty() && self.faults_more == 0
    }
}

/// Checks every log in `data_dir`. What looks damaged while an agent runs may be a file that it is
/// using again: it is looked at once more, and only what stays is said.
///
/// # Errors
/// [`BufferError`].
pub fn verify(data_dir: &Path) -> Result<Verified, BufferError> {
    let mut before = look(data_dir)?;
    for _ in 1..BUFFER_TRIES {
        if before.faults.is_empty() {
            break;
        }
        let mut again = look(data_dir)?;
        again.faults.retain(|fault| before.faults.contains(fault));
        again
            .declared
            .retain(|fault| before.declared.contains(fault));
        let stays = again.faults.len() == before.faults.len();
        before = again;
        if stays {
            break;
        }
    }
    Ok(before)
}

fn look(data_dir: &Path) -> Result<Verified, BufferError> {
    let view = View::open(data_dir)?;
    let mut found = Verified::default();
    let mut decoder = Decoder::new();
    for log in &view.logs {
        // What no reader meets: segments without a header.
        for damage in log.recovery.unmet() {
            let numbers = damage.numbers.clone();
            let fault = Fault {
                log: log.which.folder().display().to_string(),
                file: damage.segment.clone(),
                offset: Some(damage.offset),
                bytes: damage.bytes,
                buffer: BufferId(damage.life.0).to_string(),
                first: damage.numbers.start,
                end: damage.numbers.end,
                what: format!("{} bytes that can't be read", damage.bytes),
            };
            note(
                &view,
                log,
                (BufferId(damage.life.0), numbers),
                fault,
                &mut found,
            );
        }
        for (life, numbers) in spans(&log.reader) {
            let buffer = BufferId(life.0);
            walk(&log.reader, life, numbers, |met| match met {
                Met::Entry(entry) => {
                    let number = entry.number;
                    if let Some(fault) = check(log, buffer, entry, &mut decoder, &mut found) {
                        let numbers = (buffer, number..number + 1);
                        note(&view, log, numbers, fault, &mut found);
                    }
                }
                Met::Damaged(bad, segment, place) => {
                    let what = "a frame that does not verify".to_owned();
                    let numbers = (bad.start, bad.end);
                    let fault = fault(log, buffer, numbers, (segment, Some(place)), what);
                    note(&view, log, (buffer, bad), fault, &mut found);
                }
                Met::Gone => found.gone += 1,
                Met::Failed(error) => {
                    let file = (String::new(), None);
                    let fault = fault(log, buffer, (0, 0), file, error.to_string());
                    list(&mut found, fault);
                }
            });
        }
    }
    for (key, numbers) in view.missing() {
        let fault = Fault {
            log: Which::Lane(key.lane).folder().display().to_string(),
            file: String::new(),
            offset: None,
            bytes: 0,
            buffer: key.buffer.to_string(),
            first: numbers.start,
            end: numbers.end,
            what: "neither here, nor acknowledged, nor declared lost".to_owned(),
        };
        list(&mut found, fault);
    }
    Ok(found)
}

fn list(found: &mut Verified, fault: Fault) {
    match found.faults.len() < BUFFER_FAULTS_MAX {
        true => found.faults.push(fault),
        false => found.faults_more += 1,
    }
}

/// Notes what can't be read: apart, where it is declared already, lies there twice, or matters no
/// more.
fn note(
    view: &View,
    log: &Opened,
    (buffer, numbers): (BufferId, Range<u64>),
    fault: Fault,
    found: &mut Verified,
) {
    let is_declared = match log.which {
        Which::DeadLetters => false,
        Which::Lane(Lane::Series) => stands_in(view, Which::SeriesCopy, buffer, numbers),
        Which::SeriesCopy => stands_in(view, Which::Lane(Lane::Series), buffer, numbers),
        Which::Lane(lane) => {
            // Where nobody knows how many there were, the first stands for all.
            let end = numbers.end.max(numbers.start + 1);
            view.is_accounted(LaneKey { buffer, lane }, numbers.start..end)
        }
        // What a damaged gap stood for is declared anew, or is missing.
        Which::Gaps => view.missing().is_empty(),
        Which::Wal => view.sealed_to().is_some_and(|to| {
            (buffer, numbers.end) <= (to.buffer, to.number) && !numbers.is_empty()
        }),
    };
    match is_declared {
        true if found.declared.len() < BUFFER_FAULTS_MAX => found.declared.push(fault),
        true => {}
        false => list(found, fault),
    }
}

/// Whether another log holds these definitions, whole; where nobody knows how many there were, all
/// that it has from the first on.
fn stands_in(view: &View, other: Which, buffer: BufferId, numbers: Range<u64>) -> bool {
    let life = LifeId(buffer.0);
    let Some(log) = view.log(other) else {
        return false;
    };
    let end = match numbers.is_empty() {
        true => log.reader.end(life).unwrap_or(0),
        false => numbers.end,
    };
    let mut decoder = Decoder::new();
    let mut whole = 0;
    walk(&log.reader, life, numbers.start..end, |met| {
        let Met::Entry(entry) = met else { return };
        let batch = check_batch(entry, Lane::Series, buffer, &mut decoder);
        whole += u64::from(batch.is_ok());
    });
    numbers.start < end && whole == end - numbers.start
}

fn fault(
    log: &Opened,
    buffer: BufferId,
    (first, end): (u64, u64),
    (file, place): (String, Option<(u64, u64)>),
    what: String,
) -> Fault {
    Fault {
        log: log.which.folder().display().to_string(),
        file,
        offset: place.map(|(offset, _)| offset),
        bytes: place.map_or(0, |(_, bytes)| bytes),
        buffer: buffer.to_string(),
        first,
        end,
        what,
    }
}

/// The file in which a number stands.
fn file_of(log: &Opened, buffer: BufferId, number: u64) -> String {
    let segments = log.reader.segments().into_iter();
    let mut holding = segments.filter(|segment| {
        segment.life.0 == buffer.0 && (segment.first..segment.end).contains(&number)
    });
    let file = holding.next().and_then(|segment| {
        let name = segment.path.file_name()?;
        Some(name.to_string_lossy().into_owned())
    });
    file.unwrap_or_default()
}

fn check(
    log: &Opened,
    buffer: BufferId,
    entry: Entry,
    decoder: &mut Decoder,
    found: &mut Verified,
) -> Option<Fault> {
    // What lies there twice is counted once.
    found.entries += u64::from(log.which != Which::SeriesCopy);
    let number = entry.number;
    let wrong = match log.which {
        Which::Wal => None,
        Which::DeadLetters => Letter::read(&entry.bytes)
            .is_none()
            .then(|| "no dead letter".to_owned()),
        Which::Lane(lane) => match check_batch(entry, lane, buffer, decoder) {
            Ok(batch) => {
                found.batches += 1;
                if batch.gap().is_none() && lane != Lane::Series {
                    found.readings += u64::from(batch.rows());
                }
                None
            }
            Err(what) => Some(what),
        },
        Which::SeriesCopy => check_batch(entry, Lane::Series, buffer, decoder).err(),
        Which::Gaps => match SealedBatch::open(entry.bytes) {
            Ok(batch) if batch.gap().is_some() => batch
                .decode(decoder)
                .err()
                .map(|error| format!("a declared loss that does not decode: {error}")),
            Ok(_) => Some("a batch that declares no loss".to_owned()),
            Err(error) => Some(format!("a declared loss that does not verify: {error}")),
        },
    };
    let file = |what| ((file_of(log, buffer, number), None), what);
    let (file, what) = wrong.map(file)?;
    Some(fault(log, buffer, (number, number + 1), file, what))
}

/// A sealed batch whose envelope, name and content are in order.
pub(crate) fn check_batch(
    entry: Entry,
    lane: Lane,
    buffer: BufferId,
    decoder: &mut Decoder,
) -> Result<SealedBatch, String> {
    let own = BatchKey {
        buffer,
        lane,
        number: entry.number,
    };
    let batch = SealedBatch::open(entry.bytes);
    let batch = batch.map_err(|error| format!("a batch that does not verify: {error}"))?;
    if batch.key() != own {
        return Err(format!("batch {} stands there", batch.key()));
    }
    let decoded = batch.decode(decoder);
    decoded.map_err(|error| format!("a batch that does not decode: {error}"))?;
    Ok(batch)
}
