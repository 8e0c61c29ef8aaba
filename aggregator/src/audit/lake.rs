//! The lake as its markers, its files' footers and its table of declared losses tell. Rows of
//! readings are the business of [`deep`](super::deep).

use super::report::{Finding, GapReport};
use super::{AuditError, LaneId, Numbers, Tally};
use crate::lake::Table;
use crate::lake::file::{Footer, LaneSum, footer_of};
use crate::lake::markers::{Done, MarkerName, folder, parse, progress};
use crate::limits::{AUDIT_LIST_BYTES_MAX, MARKER_BYTES_MAX};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tributary_protocol::ids::{AgentId, BatchHash, HashSum, Lane, LaneKey, LogId};
use tributary_protocol::limits::BATCH_BYTES_MAX;

pub(super) const PUT_BACK: &str = "put it back from a copy of the lake";

/// The tables that are read.
const TABLES: [Table; 4] = [
    Table::Readings,
    Table::Alerts,
    Table::Aggregates,
    Table::Gaps,
];

/// Sums by lane.
pub(super) type Tallies = BTreeMap<LaneId, Tally>;

/// The flush that a file is of: journal, first entry, one past the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Flush {
    pub(super) log: LogId,
    pub(super) first: u64,
    pub(super) end: u64,
}

/// A Parquet file of a flush.
#[derive(Debug)]
pub(super) struct Seen {
    /// Below the lake.
    pub(super) path: Box<str>,
    pub(super) table: Table,
}

/// What is seen of a flush.
#[derive(Debug, Default)]
pub(super) struct FlushSeen {
    /// How many files it has.
    files: u64,
    /// Their readings.
    rows: u64,
    /// What they say of each lane; of a flush alone that has a marker of its own.
    lanes: Tallies,
    /// The files, where every row is to be read.
    pub(super) paths: Vec<Seen>,
}

/// What the lake says.
pub(super) struct Lake {
    pub(super) dir: PathBuf,
    pub(super) log: LogId,
    /// Everything below is in the lake.
    pub(super) position: u64,
    /// The files of all flushes, of other journals, too.
    pub(super) flushes: BTreeMap<Flush, FlushSeen>,
    /// Flushes that have a marker of their own.
    chain: BTreeSet<(u64, u64)>,
    deep: bool,
    /// What the markers say of all lanes together.
    pub(super) marked: Tally,
    /// What they say of each lane; nothing where some of them are folded into one.
    pub(super) marked_lanes: Option<Tallies>,
    /// What files say of each lane.
    pub(super) lanes: Tallies,
    /// Files of this journal.
    pub(super) files: u64,
    /// Of gaps, the first of each lane; and how many more there are.
    pub(super) gaps: Vec<(LaneId, GapReport)>,
    /// Batches in `rejected/`.
    pub(super) set_apart: Numbers,
    /// The part of them that never verified.
    pub(super) quarantined: Numbers,
    /// Lanes of which a flush's files lack something, or have too much.
    pub(super) shorts: Vec<Short>,
    /// Whether every marker could be read.
    pub(super) markers_are_whole: bool,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// A lane of which the files of a flush do not have what its marker says.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) lane: LaneId,
    pub(super) first: u64,
    pub(super) end: u64,
}

impl Lake {
    /// Reads markers, footers and declared losses of the lake in `dir`; remembers every file if
    /// `deep`.
    pub(super) fn read(dir: &Path, log: LogId, deep: bool) -> Result<Self, AuditError> {
        let mut lake = Self {
            dir: dir.to_owned(),
            log,
            position: 0,
            flushes: BTreeMap::new(),
            chain: BTreeSet::new(),
            deep,
            marked: Tally::default(),
            marked_lanes: Some(Tallies::new()),
            lanes: Tallies::new(),
            files: 0,
            gaps: Vec::new(),
            set_apart: Numbers::new(),
            quarantined: Numbers::new(),
            shorts: Vec::new(),
            markers_are_whole: true,
            findings: Vec::new(),
            notes: Vec::new(),
        };
        let markers = dir.join(folder(log));
        let names = names_in(&markers)?;
        let names: Vec<MarkerName> = names.iter().filter_map(|n| MarkerName::parse(n)).collect();
        let found = progress(&names);
        lake.position = found.position;
        lake.chain = found.chain.iter().copied().collect();
        for table in TABLES {
            lake.read_table(table)?;
        }
        let rejected = lake.rejected()?;
        for (first, end) in &found.chain {
            lake.check_marker(&markers, (*first, *end), &rejected);
        }
        lake.count_set_apart();
        lake.note_others();
        Ok(lake)
    }

    fn read_table(&mut self, table: Table) -> Result<(), AuditError> {
        let top = self.dir.join(table.name());
        for day in names_in(&top)? {
            for hour in names_in(&top.join(&day))? {
                let folder = top.join(&day).join(&hour);
                for name in names_in(&folder)? {
                    self.see(table, &folder.join(&name), &name);
                }
            }
        }
        Ok(())
    }

    fn see(&mut self, table: Table, path: &Path, name: &str) {
        let Some(flush) = name.strip_suffix(".parquet").and_then(flush_of) else {
            // What is being put has another ending for so long.
            if name.ends_with(".parquet") {
                let path = path.display();
                self.notes.push(format!("{path} is no file of Tributary's"));
            }
            return;
        };
        let counts = flush.log != self.log || flush.end <= self.position;
        if !counts {
            // Of a flush that is not done: it is redone, whatever lies here.
            return;
        }
        let (footer, wrong) = match read_footer(path) {
            Ok((footer, rows)) if rows == footer.rows => (Some(footer), None),
            Ok((footer, rows)) => {
                let what = format!("it has {rows} rows, and says {}", footer.rows);
                (Some(footer), Some(what))
            }
            Err(why) => (None, Some(why)),
        };
        if let Some(why) = wrong {
            let (path, Flush { first, end, .. }) = (path.display(), flush);
            let what = format!("{path} (entries {first}..{end} of the journal): {why}");
            self.findings.push(Finding::general(what, PUT_BACK));
        }
        if table == Table::Gaps && footer.is_some() {
            self.read_gaps(flush, path);
        }
        self.remember(flush, table, path, footer);
    }

    fn remember(&mut self, flush: Flush, table: Table, path: &Path, footer: Option<Footer>) {
        let own = flush.log == self.log;
        let marked = own && self.chain.contains(&(flush.first, flush.end));
        let seen = self.flushes.entry(flush).or_default();
        seen.files += 1;
        if self.deep
            && footer.is_some()
            && let Ok(below) = path.strip_prefix(&self.dir)
        {
            let path = below.to_string_lossy().into();
            seen.paths.push(Seen { path, table });
        }
        let Some(footer) = footer else { return };
        if table != Table::Gaps {
            seen.rows += footer.rows;
        }
        for (lane, tally) in footer.lanes.iter().filter_map(tally_of).filter(|_| own) {
            if marked {
                let all = seen.lanes.entry(lane.clone()).or_default();
                *all = all.and(tally);
            }
            let all = self.lanes.entry(lane).or_default();
            *all = all.and(tally);
        }
    }

    fn read_gaps(&mut self, flush: Flush, path: &Path) {
        if flush.log != self.log {
            return;
        }
        match gap_rows(path) {
            Ok(rows) => {
                for row in rows {
                    match row {
                        Gap::Of(lane, gap) => self.gaps.push((*lane, gap)),
                        Gap::Journal(first, count) => self.findings.push(Finding::general(
                            format!(
                                "entries {first}..{} of the journal could not be read when the \
                                 lake came to them: it declares them lost",
                                first.saturating_add(count)
                            ),
                            "what was in them is lost here: look whether an agent or a copy of \
                             the journal still has it",
                        )),
                    }
                }
            }
            Err(why) => {
                let what = format!("{}: {why}", path.display());
                self.findings.push(Finding::general(what, PUT_BACK));
            }
        }
    }

    /// What lies in `rejected/`: how many files each flush has there.
    fn rejected(&mut self) -> Result<BTreeMap<Flush, u64>, AuditError> {
        let dir = self.dir.join("rejected");
        let mut files: BTreeMap<Flush, u64> = BTreeMap::new();
        for name in names_in(&dir)? {
            let Some((stem, ending)) = name.rsplit_once('.') else {
                continue;
            };
            let Some(flush) = flush_of(stem).filter(|flush| flush.log == self.log) else {
                continue;
            };
            if flush.end > self.position || !matches!(ending, "json" | "batches") {
                continue;
            }
            *files.entry(flush).or_default() += 1;
            if ending == "json" {
                let path = dir.join(&name);
                if let Err(why) = self.read_list(flush, &path) {
                    let what = format!("{}: {why}", path.display());
                    self.findings.push(Finding::general(what, PUT_BACK));
                }
            }
        }
        Ok(files)
    }

    /// Reads a list of what was set apart, and whether it lies there as it came.
    fn read_list(&mut self, flush: Flush, path: &Path) -> Result<(), String> {
        let text = read_bounded(path, AUDIT_LIST_BYTES_MAX).map_err(|error| error.to_string())?;
        let list: Vec<Rejected> =
            serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let batches = File::open(path.with_extension("batches"));
        let mut batches = batches.map_err(|error| format!("of its batches: {error}"))?;
        for rejected in list {
            let (lane, number) = rejected.of().ok_or("it names a batch that can't be")?;
            let hash = rejected.hash().ok_or("it names a hash that can't be")?;
            if !(flush.first..flush.end).contains(&rejected.entry) {
                return Err(format!("entry {} is none of its flush", rejected.entry));
            }
            if rejected
                .read(&mut batches)
                .map(|bytes| BatchHash::of(&bytes))
                != Some(hash)
            {
                return Err(format!("batch {number} does not lie beside it as it came"));
            }
            let new = self
                .set_apart
                .entry(lane.clone())
                .or_default()
                .insert(number, hash);
            if !new {
                return Err(format!(
                    "batch {number} stands in it, and was set apart before"
                ));
            }
            if rejected.reason.starts_with("quarantined") {
                let quarantined = self.quarantined.entry(lane).or_default();
                quarantined.insert(number, hash);
            }
        }
        Ok(())
    }

    /// Compares a marker with the files of its entries.
    fn check_marker(
        &mut self,
        markers: &Path,
        (first, end): (u64, u64),
        rejected: &BTreeMap<Flush, u64>,
    ) {
        let path = markers.join(format!("{first:020}-{end:020}.done"));
        let said = read_bounded(&path, MARKER_BYTES_MAX).map_err(|error| error.to_string());
        let done = said.and_then(|text| {
            let shown = path.display().to_string();
            parse::<Done>(&shown, &text, self.log).map_err(|error| error.to_string())
        });
        let done = match done {
            Ok(done) => done,
            Err(why) => {
                let what = format!("the marker {}: {why}", path.display());
                self.findings.push(Finding::general(what, PUT_BACK));
                self.markers_are_whole = false;
                self.marked_lanes = None;
                return;
            }
        };
        let sum = u128::from_str_radix(&done.hash_sum, 16).unwrap_or(0);
        let marked = Tally {
            batches: done.batches,
            rows: done.rows,
            sum: HashSum(sum),
        };
        self.marked = self.marked.and(marked);
        self.mark_lanes(&done);
        let within = Flush {
            log: self.log,
            first,
            end: 0,
        }..Flush {
            log: self.log,
            first: end,
            end: 0,
        };
        let (mut files, mut rows) = (0, 0);
        for (_, seen) in self.flushes.range(within.clone()) {
            files += seen.files;
            rows += seen.rows;
        }
        files += rejected.range(within).map(|(_, files)| *files).sum::<u64>();
        self.files += files;
        let (all_files, all_rows) = (done.files, done.rows);
        let log = self.log;
        let seen = self.flushes.get(&Flush { log, first, end });
        let shorts = by_lane(&done, seen, &self.set_apart);
        if files != all_files || rows != all_rows {
            let what = format!(
                "the flush of entries {first}..{end} wrote {all_files} files with {all_rows} \
                 readings, and there are {files} files with {rows}"
            );
            let todo = match files > all_files {
                true => "the file that is too many is a copy: take it away",
                false => "put back what is missing from a copy of the lake",
            };
            self.findings.push(Finding::general(what, todo));
        }
        let shorts = shorts.into_iter();
        self.shorts
            .extend(shorts.map(|lane| Short { lane, first, end }));
    }

    fn mark_lanes(&mut self, done: &Done) {
        let folded = done.lanes.is_empty() && done.batches > 0;
        let Some(marked) = self.marked_lanes.as_mut().filter(|_| !folded) else {
            self.marked_lanes = None;
            return;
        };
        for (lane, tally) in done.lanes.iter().filter_map(tally_of) {
            let all = marked.entry(lane).or_default();
            *all = all.and(tally);
        }
    }

    /// Adds what lies in `rejected/` to what the files say.
    fn count_set_apart(&mut self) {
        for (lane, held) in &self.set_apart {
            let all = self.lanes.entry(lane.clone()).or_default();
            *all = all.and(Tally::of(held));
        }
    }

    fn note_others(&mut self) {
        let mut others: BTreeMap<LogId, u64> = BTreeMap::new();
        for (flush, seen) in &self.flushes {
            if flush.log != self.log {
                *others.entry(flush.log).or_default() += seen.files;
            }
        }
        for (log, files) in others {
            self.notes.push(format!(
                "{files} files of journal {log}, which is not here, lie in the lake: their \
                 batches are compared with --deep alone"
            ));
        }
    }
}

/// The lanes of which a flush's files have something else than its marker says.
fn by_lane(done: &Done, seen: Option<&FlushSeen>, set_apart: &Numbers) -> Vec<LaneId> {
    let there = |lane: &LaneId| seen.and_then(|seen| seen.lanes.get(lane).copied());
    let marked = done.lanes.iter().filter_map(tally_of);
    let wrong = marked.filter(|(lane, marked)| {
        let there = there(lane).unwrap_or_default();
        // What was set apart is in no footer, and no definition is.
        let whole = set_apart.contains_key(lane) || lane.1.lane == Lane::Series;
        there.rows != marked.rows || !(whole || there.is_same(*marked))
    });
    wrong.map(|(lane, _)| lane).collect()
}

/// An entry of a list in `rejected/`.
#[derive(serde::Deserialize)]
struct Rejected {
    entry: u64,
    offset: u64,
    bytes: usize,
    agent: String,
    batch: String,
    hash: String,
    reason: String,
}

impl Rejected {
    /// Its bytes.
    fn read(&self, file: &mut File) -> Option<Vec<u8>> {
        if self.bytes > BATCH_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; self.bytes];
        file.seek(SeekFrom::Start(self.offset)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn of(&self) -> Option<(LaneId, u64)> {
        let mut parts = self.batch.split('/');
        let (buffer, lane, number) = (parts.next()?, parts.next()?, parts.next()?);
        let lane = lane_of(&self.agent, buffer, lane)?;
        Some((lane, number.parse().ok()?))
    }

    fn hash(&self) -> Option<BatchHash> {
        let mut hash = [0; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.hash.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(BatchHash(hash))
    }
}

/// The lane with these names.
pub(super) fn lane_of(agent: &str, buffer: &str, lane: &str) -> Option<LaneId> {
    let (tenant, uuid) = agent.split_once('/')?;
    let agent = AgentId::new(tenant, uuid.parse().ok()?).ok()?;
    let (buffer, lane) = (buffer.parse().ok()?, lane.parse().ok()?);
    Some((agent, LaneKey { buffer, lane }))
}

fn tally_of(sum: &LaneSum) -> Option<(LaneId, Tally)> {
    let lane = lane_of(&sum.agent, &sum.buffer, &sum.lane)?;
    let tally = Tally {
        batches: sum.batches,
        rows: sum.rows,
        sum: HashSum(u128::from_str_radix(&sum.hash_sum, 16).ok()?),
    };
    Some((lane, tally))
}

/// The names in a folder, in order; none where there is no folder.
fn names_in(dir: &Path) -> Result<Vec<String>, AuditError> {
    let failed = |source| AuditError::Lake {
        path: dir.to_owned(),
        source,
    };
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("over {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// `<log>-<first>-<end>`.
fn flush_of(stem: &str) -> Option<Flush> {
    let mut parts = stem.split('-');
    let log = parts.next()?.parse().ok()?;
    let mut number = || {
        let digits = parts.next().filter(|digits| digits.len() == 20)?;
        digits.parse().ok()
    };
    let (first, end) = (number()?, number()?);
    (first < end).then_some(Flush { log, first, end })
}

/// Footer and number of rows.
pub(super) fn read_footer(path: &Path) -> Result<(Footer, u64), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    guarded(|| footer_of(&path.display().to_string(), &file).map_err(|error| error.to_string()))
}

/// Runs what may panic on damaged bytes: Parquet's reader relies on what it reads.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    read.unwrap_or_else(|_| Err("the Parquet reader panicked: the file is damaged".to_owned()))
}

enum Gap {
    Of(Box<LaneId>, GapReport),
    /// Entries of the journal: the first, and how many.
    Journal(u64, u64),
}

fn gap_rows(path: &Path) -> Result<Vec<Gap>, String> {
    guarded(|| {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
        let rows = reader
            .get_row_iter(None)
            .map_err(|error| error.to_string())?;
        let mut gaps = Vec::new();
        for row in rows {
            let row = row.map_err(|error| error.to_string())?;
            let gap = gap_row(&row).map_err(|error| error.to_string())?;
            gaps.push(gap.ok_or("a row names a lane that can't be")?);
        }
        Ok(gaps)
    })
}

/// By the place of each column: columns are only added, at the end.
fn gap_row(row: &parquet::record::Row) -> parquet::errors::Result<Option<Gap>> {
    let text = |at| row.get_string(at).map(String::as_str);
    let whole = |at| row.get_long(at).map(i64::cast_unsigned);
    let (tenant, agent) = (text(0)?, text(1)?);
    if agent.is_empty() {
        return Ok(Some(Gap::Journal(whole(5)?, whole(6)?)));
    }
    let lane = lane_of(&format!("{tenant}/{agent}"), text(2)?, text(3)?);
    let gap = GapReport {
        batch: whole(4)?,
        first: whole(5)?,
        count: whole(6)?,
        // Null where nobody knows.
        readings: whole(7).ok(),
        reason: text(10)?.to_owned(),
        detail: text(11)?.to_owned(),
    };
    Ok(lane.map(|lane| Gap::Of(Box::new(lane), gap)))
}
