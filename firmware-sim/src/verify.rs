//! The verifier: holds the lake against the truth ledger, reading by reading and bit by bit.
//!
//! It reads Parquet columns itself and shares no code with what wrote them. It needs about 48 bytes
//! of memory for each reading of the ledger (2 GB for 40 million), and none for the lake.
//!
//! A row belongs to the reading with its device, metric and sequence; of a run without numbers,
//! with its device, metric and time. What is counted:
//!
//! | count | what |
//! |---|---|
//! | delivered | readings that the lake holds, each once however many copies there are |
//! | lost | acknowledged, and no row with its device, metric and sequence |
//! | duplicates | rows beyond the first with one device, metric, sequence and time |
//! | changed | rows whose reading has another time, type or value bits |
//! | foreign | rows of a device of this truth that it never published |
//! | earlier | such rows that the agent received before this run began: of an older run |
//! | others | rows of devices that this truth does not name |
//! | declared | readings that the table `gaps` declares lost, of this run's time or of none |

mod lake;

use crate::limits::{VERIFY_DEPTH_MAX, VERIFY_EXAMPLES_MAX};
use crate::reading::Value;
use crate::replay::time::Rfc3339;
use crate::truth::{Event, Header, Tail, TruthError, TruthReader};
use lake::Row;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The truth ledger cannot be read.
    #[error(transparent)]
    Truth(#[from] TruthError),
    /// There is no such folder.
    #[error(
        "{}: {error}; name the lake's folder, or its folder `readings`", path.display()
    )]
    Lake {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A file of the lake that could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// What the comparison found. All counts are of readings or rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Readings that were put on the wire.
    pub published: u64,
    /// Readings whose PUBACK came.
    pub acknowledged: u64,
    /// Readings that the server answered with an MQTT 5 error.
    pub refused: u64,
    /// Readings that the lake holds, unchanged.
    pub delivered: u64,
    /// Acknowledged readings that the lake does not hold at all.
    pub lost: u64,
    /// Rows beyond the first of one reading.
    pub duplicates: u64,
    /// The same where several lakes are read, and all but one of the rows say that they are in
    /// doubt: allowed.
    pub twice_in_doubt: u64,
    /// Rows whose reading has another time, type or value bits.
    pub changed: u64,
    /// Rows of known devices that were never published.
    pub foreign: u64,
    /// Rows of known devices from before this run.
    pub earlier: u64,
    /// Rows of devices that this truth does not name.
    pub others: u64,
    /// Delivered readings whose PUBACK did not come: allowed.
    pub unacknowledged_delivered: u64,
    /// Readings that the lake's table `gaps` declares lost, of this run's time or later, or of no
    /// time.
    pub declared: u64,
    /// Such gaps that do not say how many readings they stand for.
    pub declared_unknown: u64,
    /// Parquet files that were read.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Files that could not be read to their end, and folders too deep to be followed.
    pub unreadable: Vec<Unreadable>,
    /// Folders that were not looked into, because their names say that they hold bookkeeping.
    pub skipped: Vec<PathBuf>,
    /// What the truth ledger's own end says, when it is not whole.
    pub truth_tail: Option<String>,
    /// The first of each kind of difference, in words.
    pub examples: Examples,
}

/// The first of each kind of difference, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// Of lost readings.
    pub lost: Vec<String>,
    /// Of duplicates.
    pub duplicates: Vec<String>,
    /// Of changed readings.
    pub changed: Vec<String>,
    /// Of foreign rows.
    pub foreign: Vec<String>,
}

impl Report {
    /// Whether the truth ledger is whole, and the lake holds every acknowledged reading once,
    /// unchanged, and nothing else of these devices.
    pub fn is_clean(&self) -> bool {
        self.truth_tail.is_none() && self.foreign == 0 && self.holds_what_is_known()
    }

    /// As [`is_clean`](Self::is_clean), for a simulator that was killed: as far as its truth goes,
    /// which must be somewhere; readings behind its end are foreign, and no fault.
    pub fn is_clean_if_killed(&self) -> bool {
        self.published > 0 && self.holds_what_is_known()
    }

    fn holds_what_is_known(&self) -> bool {
        let wrong = self.lost + self.duplicates + self.changed;
        wrong == 0 && self.unreadable.is_empty()
    }
}

/// Compares the lake (its root, or its folder `readings`) with a truth ledger.
///
/// # Errors
/// When the ledger cannot be read, or there is no such folder. A Parquet file that cannot be read
/// is a finding, not an error; where a damaged one makes the reader of Parquet panic, that is so
/// too, but in a process whose panic hook aborts: that ends then, and never well.
pub fn compare(lake: &Path, truth: &Path) -> Result<Report, VerifyError> {
    compare_all(&[lake], truth)
}

/// As [`compare`], with all that several lakes hold together. What is in doubt in all of them but
/// one is no duplicate.
///
/// # Errors
/// As those of [`compare`].
pub fn compare_all(lakes: &[impl AsRef<Path>], truth: &Path) -> Result<Report, VerifyError> {
    let mut oracle = Oracle::load(truth)?;
    oracle.several = lakes.len() > 1;
    for lake in lakes {
        oracle.read(lake.as_ref())?;
    }
    Ok(oracle.conclude())
}

/// The numbers of the readings of a device and metric that the lake holds, each as often as it
/// does, in order.
///
/// # Errors
/// What can't be read, in words.
pub fn numbers(lake: &Path, device: &str, metric: &str) -> Result<Vec<i64>, String> {
    let found = lake::files(lake).map_err(|error| error.to_string())?;
    let mut numbers = Vec::new();
    for file in found.files {
        lake::read_rows(&file, &mut |row| {
            let ours = row.device == device && row.metric == metric;
            numbers.extend(row.seq.filter(|_| ours));
        })?;
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The alerts of a lake, each as often as it stands there: its id, and whether it was raised,
/// acknowledged or cleared.
///
/// # Errors
/// What can't be read, in words.
pub fn alerts(lake: &Path) -> Result<Vec<(String, String)>, String> {
    let files = lake::files_of(lake, "alerts").map_err(|error| error.to_string())?;
    let mut alerts = Vec::new();
    for file in files {
        let mut each = |id: &str, state: &str| alerts.push((id.to_owned(), state.to_owned()));
        lake::read_alerts(&file, &mut each)?;
    }
    alerts.sort_unstable();
    Ok(alerts)
}

/// Whose a row of the lake is: the same for ever.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    /// The life of the agent's storage.
    pub buffer: String,
    /// The lane.
    pub lane: String,
    /// The number of its batch there.
    pub batch: i64,
    /// Its place in the batch.
    pub row: i32,
}

/// A declared loss. The aggregator's own has no lane and no buffer, and numbers its journal's
/// entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The life of the agent's storage.
    pub buffer: String,
    /// The lane.
    pub lane: String,
    /// The first number that it stands for.
    pub first: i64,
    /// How many.
    pub count: i64,
    /// Their readings; none: unknown.
    pub readings: Option<i64>,
    /// Why.
    pub reason: String,
}

/// Passes each row of a table of the lake to `each`: whose it is, and its `json`, where the table
/// has that.
///
/// # Errors
/// What can't be read, in words.
pub fn identities(
    lake: &Path,
    table: &str,
    each: &mut dyn FnMut(Identity, Option<&str>),
) -> Result<(), String> {
    let files = lake::files_of(lake, table).map_err(|error| error.to_string())?;
    files
        .iter()
        .try_for_each(|file| lake::read_identities(file, each))
}

/// What a lake declares lost.
///
/// # Errors
/// What can't be read, in words.
pub fn losses(lake: &Path) -> Result<Vec<Loss>, String> {
    let files = lake::files_of(lake, "gaps").map_err(|error| error.to_string())?;
    let mut losses = Vec::new();
    for file in files {
        lake::read_losses(&file, &mut |loss| losses.push(loss))?;
    }
    Ok(losses)
}

const ACKNOWLEDGED: u8 = 1;
/// A row with its sequence was seen: it is not lost.
const PRESENT: u8 = 2;
/// A row with its sequence and time was seen: one more is a duplicate.
const SEEN: u8 = 4;
const DELIVERED: u8 = 8;
/// One of the rows that were seen is not in doubt.
const CERTAIN: u8 = 16;

/// A published reading; what it was, and what the lake has shown of it.
struct Entry {
    seq: u64,
    time_us: i64,
    /// The value's bits, or the place of its text.
    bits: u64,
    kind: Kind,
    state: u8,
}

const _: () = assert!(size_of::<Entry>() <= 32);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    F64,
    I64,
    Bool,
    Text,
}

struct SeriesTruth {
    device: Box<str>,
    metric: Box<str>,
    /// By `seq`, strictly ascending.
    entries: Vec<Entry>,
}

/// The truth in memory, and the report as it grows.
struct Oracle {
    series: Vec<SeriesTruth>,
    devices: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    texts: Vec<std::sync::Arc<str>>,
    places: HashMap<std::sync::Arc<str>, u64>,
    started_us: i64,
    /// Whether rows say the device's numbers.
    numbered: bool,
    /// Whether more than one lake is read: then what is in doubt may be in another.
    several: bool,
    report: Report,
}

impl Oracle {
    fn load(path: &Path) -> Result<Self, TruthError> {
        let reader = TruthReader::open(path)?;
        let Header {
            started_ms,
            numbered,
            ..
        } = *reader.header();
        let mut oracle = Self {
            series: Vec::new(),
            devices: HashMap::new(),
            texts: Vec::new(),
            places: HashMap::new(),
            started_us: started_ms.saturating_mul(1_000),
            numbered,
            several: false,
            report: Report::default(),
        };
        let tail = reader.read(|event| oracle.learn(event))?;
        oracle.report.truth_tail = match tail {
            Tail::Whole => None,
            Tail::Open => Some(
                "it has no end record: the run was killed, and its last readings are missing"
                    .to_owned(),
            ),
            Tail::Torn { at, bytes } => Some(format!(
                "its last {bytes} bytes, from byte {at}, are a torn block: the run was killed or \
                 the file was cut, and its last readings are missing"
            )),
        };
        Ok(oracle)
    }

    fn learn(&mut self, event: Event) -> Result<(), &'static str> {
        match event {
            Event::Series {
                series,
                device,
                metric,
            } => {
                if series as usize != self.series.len() {
                    return Err("series are not numbered in order");
                }
                let (device, metric) = (device.into_boxed_str(), metric.into_boxed_str());
                let metrics = self.devices.entry(device.clone()).or_default();
                if metrics.insert(metric.clone(), self.series.len()).is_some() {
                    return Err("a series is named twice");
                }
                self.series.push(SeriesTruth {
                    device,
                    metric,
                    entries: Vec::new(),
                });
            }
            Event::Published(reading) => {
                let (kind, bits) = match reading.value {
                    Value::F64(x) => (Kind::F64, x.to_bits()),
                    Value::I64(x) => (Kind::I64, x as u64),
                    Value::Bool(x) => (Kind::Bool, u64::from(x)),
                    Value::Text(text) => (Kind::Text, self.place(text)),
                };
                let series = self.series.get_mut(reading.series as usize);
                let entries = &mut series.ok_or("a reading of an unnamed series")?.entries;
                if entries.last().is_some_and(|last| last.seq >= reading.seq) {
                    return Err("the sequence of a series does not increase");
                }
                let (seq, time_us) = (reading.seq, reading.time_us);
                entries.push(Entry {
                    seq,
                    time_us,
                    bits,
                    kind,
                    state: 0,
                });
                self.report.published += 1;
            }
            Event::Acknowledged { series, seq } => {
                let entry = self
                    .entry(series, seq)
                    .ok_or("an acknowledgement of nothing")?;
                if entry.state & ACKNOWLEDGED != 0 {
                    return Err("a reading is acknowledged twice");
                }
                entry.state |= ACKNOWLEDGED;
                self.report.acknowledged += 1;
            }
            Event::Refused { .. } => self.report.refused += 1,
            Event::Faulty { series, seq, .. } => {
                let known = self.entry(series, seq);
                known.ok_or("a fault in a reading that was not published")?;
            }
            Event::End {
                published,
                acknowledged,
            } => {
                let counted = (self.report.published, self.report.acknowledged);
                if counted != (published, acknowledged) {
                    return Err("its counts differ from what it holds");
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, series: u32, seq: u64) -> Option<&mut Entry> {
        let entries = &mut self.series.get_mut(series as usize)?.entries;
        let place = entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        entries.get_mut(place)
    }

    fn place(&mut self, text: std::sync::Arc<str>) -> u64 {
        *self.places.entry(text).or_insert_with_key(|text| {
            self.texts.push(text.clone());
            self.texts.len() as u64 - 1
        })
    }

    fn read(&mut self, lake: &Path) -> Result<(), VerifyError> {
        let found = lake::files(lake).map_err(|error| VerifyError::Lake {
            path: lake.to_owned(),
            error,
        })?;
        self.report.skipped.extend(found.skipped);
        let too_deep = |file| Unreadable {
            file,
            why: format!("a folder more than {VERIFY_DEPTH_MAX} levels down"),
        };
        let too_deep = found.too_deep.into_iter().map(too_deep);
        self.report.unreadable.extend(too_deep);
        for file in found.files {
            self.report.files += 1;
            if let Err(why) = lake::read_rows(&file, &mut |row| self.judge(&row, &file)) {
                self.report.unreadable.push(Unreadable { file, why });
            }
        }
        self.count_declared(lake)
    }

    /// Counts one row of the lake.
    fn judge(&mut self, row: &Row<'_>, file: &Path) {
        self.report.rows += 1;
        let Some(metrics) = self.devices.get(row.device) else {
            self.report.others += 1;
            return;
        };
        let series = metrics.get(row.metric).copied();
        let truth = series.and_then(|series| self.series.get_mut(series));
        let numbered = self.numbered;
        let entry = truth.and_then(|truth| {
            let entries = &mut truth.entries;
            let place = match (numbered, row.seq.map(u64::try_from)) {
                (true, seq) => {
                    let seq = seq?.ok()?;
                    entries.binary_search_by_key(&seq, |entry| entry.seq)
                }
                (false, Some(_)) => return None,
                // Its times increase, too.
                (false, None) => entries.binary_search_by_key(&row.time_us, |entry| entry.time_us),
            };
            entries.get_mut(place.ok()?)
        });
        // What is not ours may be left of an older run of the same devices.
        let is_earlier = row.received_us < self.started_us;
        let report = &mut self.report;
        let Some(entry) = entry else {
            if is_earlier {
                report.earlier += 1;
            } else {
                report.foreign += 1;
                note(&mut report.examples.foreign, || row.describe(file));
            }
            return;
        };
        if row.time_us != entry.time_us && is_earlier {
            report.earlier += 1;
            return;
        }
        let same_time = row.time_us == entry.time_us;
        entry.state |= PRESENT;
        let in_doubt = row.in_doubt && self.several;
        if same_time && entry.state & SEEN != 0 {
            if in_doubt || entry.state & CERTAIN == 0 {
                report.twice_in_doubt += 1;
            } else {
                report.duplicates += 1;
                note(&mut report.examples.duplicates, || row.describe(file));
            }
        }
        entry.state |= if same_time && !in_doubt { CERTAIN } else { 0 };
        if same_time && is_same(entry, row, &self.places) {
            if entry.state & DELIVERED == 0 {
                report.delivered += 1;
                report.unacknowledged_delivered += u64::from(entry.state & ACKNOWLEDGED == 0);
            }
            entry.state |= SEEN | DELIVERED;
            return;
        }
        entry.state |= if same_time { SEEN } else { 0 };
        report.changed += 1;
        let texts = &self.texts;
        note(&mut report.examples.changed, || {
            let time = Rfc3339(entry.time_us);
            let published = value_of(entry, texts);
            format!("{}; published: {published} at {time}", row.describe(file))
        });
    }

    /// Counts what the lake itself declares lost.
    fn count_declared(&mut self, lake: &Path) -> Result<(), VerifyError> {
        let files = lake::files_of(lake, "gaps").map_err(|error| VerifyError::Lake {
            path: lake.to_owned(),
            error,
        })?;
        let (started_us, report) = (self.started_us, &mut self.report);
        for file in files {
            let mut count = |gap: lake::GapRow| {
                // The aggregator's own losses have no time: who knows what was in them.
                if gap.event_last_us < started_us && gap.event_last_us != 0 {
                    return;
                }
                match gap
                    .readings
                    .and_then(|readings| u64::try_from(readings).ok())
                {
                    Some(readings) => report.declared += readings,
                    None => report.declared_unknown += 1,
                }
            };
            if let Err(why) = lake::read_gaps(&file, &mut count) {
                report.unreadable.push(Unreadable { file, why });
            }
        }
        Ok(())
    }

    fn conclude(mut self) -> Report {
        let report = &mut self.report;
        for series in &self.series {
            for entry in &series.entries {
                if entry.state & ACKNOWLEDGED != 0 && entry.state & PRESENT == 0 {
                    report.lost += 1;
                    note(&mut report.examples.lost, || {
                        let (device, metric, seq) = (&series.device, &series.metric, entry.seq);
                        let (time, value) = (Rfc3339(entry.time_us), value_of(entry, &self.texts));
                        format!("{device} {metric} seq {seq} at {time}: {value}")
                    });
                }
            }
        }
        self.report
    }
}

fn is_same(entry: &Entry, row: &Row<'_>, places: &HashMap<std::sync::Arc<str>, u64>) -> bool {
    match (entry.kind, &row.value) {
        (Kind::F64, lake::Cell::F64(x)) => x.to_bits() == entry.bits,
        (Kind::I64, lake::Cell::I64(x)) => *x as u64 == entry.bits,
        (Kind::Bool, lake::Cell::Bool(x)) => u64::from(*x) == entry.bits,
        (Kind::Text, lake::Cell::Text(x)) => places.get(*x) == Some(&entry.bits),
        _ => false,
    }
}

fn value_of(entry: &Entry, texts: &[std::sync::Arc<str>]) -> Value {
    match entry.kind {
        Kind::F64 => Value::F64(f64::from_bits(entry.bits)),
        Kind::I64 => Value::I64(entry.bits as i64),
        Kind::Bool => Value::Bool(entry.bits != 0),
        Kind::Text => {
            let text = usize::try_from(entry.bits)
                .ok()
                .and_then(|place| texts.get(place));
            Value::Text(text.cloned().unwrap_or_else(|| "".into()))
        }
    }
}

fn note(examples: &mut Vec<String>, words: impl FnOnce() -> String) {
    if examples.len() < VERIFY_EXAMPLES_MAX {
        examples.push(words());
    }
}
