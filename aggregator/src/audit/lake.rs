//! The lake as its markers, its files' footers and its table of declared losses tell. What was read
//! once is not read again: each [`update`](Lake::update) adds what came since. Rows of readings are
//! the business of [`deep`](super::deep).

use super::files::{self, OfFlush, flush_of, names_in, numbers_of, read_bounded, read_footer};
use super::gaps::{Declared, Gap, gap_rows};
use super::rejected::Rejected;
use super::report::{Finding, Findings, GapReport};
use super::{AuditError, LaneId, Numbers, Tally, lane_of};
use crate::lake::Table;
use crate::lake::file::{Footer, LaneSum};
use crate::lake::found::{RestoredLane, restored_path};
use crate::lake::markers::{Done, Intent, MarkerName, Told, folder, intent_path, progress};
use crate::limits::{AUDIT_LIST_BYTES_MAX, MARKER_BYTES_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tributary_protocol::ids::{BatchHash, HashSum, Lane, LogId};

pub(super) const PUT_BACK: &str = "put it back from a copy of the lake";
pub(super) const NOT_OURS: &str =
    "take it out of the lake: whoever reads the lake with a wildcard reads it, too";

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
    /// The files whose rows are to be read.
    pub(super) paths: Vec<Seen>,
}

/// What the markers say.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// Of all lanes together.
    pub(super) all: Tally,
    /// Of each lane; nothing where some of them are folded into one.
    pub(super) lanes: Option<Tallies>,
    /// Files of this journal.
    pub(super) files: u64,
    /// Lanes of which a flush's files lack something, or have too much.
    pub(super) shorts: Vec<Short>,
    /// Whether every marker could be read.
    pub(super) are_whole: bool,
    findings: Findings,
}

/// What the lake says.
pub(super) struct Lake {
    pub(super) dir: PathBuf,
    pub(super) log: LogId,
    /// Everything below is in the lake.
    pub(super) position: u64,
    /// Files of flushes below were read; and those of other journals.
    read_to: Option<u64>,
    /// The files of all flushes, of other journals, too.
    pub(super) flushes: BTreeMap<Flush, FlushSeen>,
    /// Flushes that have a marker of their own.
    chain: BTreeSet<(u64, u64)>,
    deep: bool,
    pub(super) marked: Marked,
    /// What the footers of files say of each lane.
    lanes: Tallies,
    /// Declared losses, and the numbers that they take.
    pub(super) gaps: BTreeMap<LaneId, Declared>,
    pub(super) declared: Numbers,
    /// Batches in `rejected/`, and how many files each flush has there.
    pub(super) set_apart: Numbers,
    rejected: BTreeMap<Flush, u64>,
    /// The part of them that never verified.
    pub(super) quarantined: Numbers,
    /// What the journal holds because the lake had it when the journal was begun.
    pub(super) restored: Numbers,
    /// What files of other journals say of each lane, and the numbers that they declare or set
    /// apart.
    pub(super) others: Tallies,
    pub(super) others_without_rows: Numbers,
    /// Parquet files that no flush wrote.
    pub(super) foreign: Vec<PathBuf>,
    /// What is wrong with files that were read, and with what lies there now.
    read_findings: Findings,
    now_findings: Findings,
}

/// A lane of which the files of a flush do not have what its marker says.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) lane: LaneId,
    pub(super) first: u64,
    pub(super) end: u64,
}

impl Lake {
    /// The lake in `dir`, of which nothing is read yet; it is going to remember every file if
    /// `deep`.
    pub(super) fn new(dir: &Path, log: LogId, deep: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            log,
            position: 0,
            read_to: None,
            flushes: BTreeMap::new(),
            chain: BTreeSet::new(),
            deep,
            marked: Marked::default(),
            lanes: Tallies::new(),
            gaps: BTreeMap::new(),
            declared: Numbers::new(),
            set_apart: Numbers::new(),
            rejected: BTreeMap::new(),
            quarantined: Numbers::new(),
            restored: Numbers::new(),
            others: Tallies::new(),
            others_without_rows: Numbers::new(),
            foreign: Vec::new(),
            read_findings: Findings::default(),
            now_findings: Findings::default(),
        }
    }

    /// Reads markers, and footers and declared losses of the flushes that came since the last time.
    pub(super) fn update(&mut self) -> Result<(), AuditError> {
        self.now_findings = Findings::default();
        let found = progress(&self.marker_names()?);
        self.position = found.position;
        self.chain = found.chain.iter().copied().collect();
        let files = files::list(&self.dir, |flush| self.is_new(flush))?;
        let rejected = names_in(&self.dir.join("rejected"))?;
        let counts = |file: &OfFlush| file.flush.log != self.log || file.flush.end <= self.position;
        let (counting, beyond): (Vec<_>, Vec<_>) = files.of_flushes.into_iter().partition(counts);
        // From here on nothing fails until it is noted that they were read.
        if self.read_to.is_none() {
            self.read_restored();
        }
        counting.iter().for_each(|file| self.see(file));
        rejected.iter().for_each(|name| self.see_rejected(name));
        self.read_to = Some(self.position);
        for path in &files.too_deep {
            let what = format!("{}: a folder so deep is not looked into", path.display());
            self.now_findings.push(Finding::general(what, NOT_OURS));
        }
        self.now_findings.leave_out(files.foreign_more);
        self.foreign = files.foreign;
        self.check_beyond(&beyond)?;
        self.read_markers(&found.chain)?;
        if found.open {
            self.intent(found.position)?;
        }
        Ok(())
    }

    /// Reads what was written down when the journal was begun: once, for it never changes.
    fn read_restored(&mut self) {
        let path = self.dir.join(restored_path(self.log));
        let read = match read_bounded(&path, AUDIT_LIST_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            text => text.map_err(|error| error.to_string()),
        };
        let read = read.and_then(|text| {
            let lanes: Result<Vec<RestoredLane>, _> = serde_json::from_slice(&text);
            lanes.map_err(|error| error.to_string())
        });
        match read {
            Ok(lanes) => self.restored = lanes.iter().filter_map(RestoredLane::of).collect(),
            Err(why) => {
                let what = format!("{}: {why}", path.display());
                self.read_findings.push(Finding::general(what, PUT_BACK));
            }
        }
    }

    fn markers(&self) -> PathBuf {
        self.dir.join(folder(self.log))
    }

    fn marker_names(&self) -> Result<Vec<MarkerName>, AuditError> {
        let names = names_in(&self.markers())?;
        Ok(names.iter().filter_map(|n| MarkerName::parse(n)).collect())
    }

    /// How far the lake is now.
    pub(super) fn position_now(&self) -> Result<u64, AuditError> {
        Ok(progress(&self.marker_names()?).position)
    }

    /// Whether a file of that flush is to be looked at: it was not read before.
    fn is_new(&self, flush: &Flush) -> bool {
        match self.read_to {
            Some(known) => flush.log == self.log && flush.end > known,
            None => true,
        }
    }

    /// Files of flushes that are not done: the flush that is under way names them, and redoes them,
    /// whatever lies there.
    fn check_beyond(&mut self, beyond: &[OfFlush]) -> Result<(), AuditError> {
        if beyond.is_empty() {
            return Ok(());
        }
        // As it stands now: what lies there may have come since, and be done by now.
        let now = progress(&self.marker_names()?);
        let intent = match now.open {
            true => self.intent(now.position)?,
            false => None,
        };
        for OfFlush { flush, path, .. } in beyond {
            let below = path.strip_prefix(&self.dir).unwrap_or(path);
            let below = below.to_string_lossy();
            let files = intent.iter().flat_map(|intent| &intent.files);
            let is_named = files.into_iter().any(|file| file.path == below);
            // Under way where the intent can't be read, too: that is said by itself.
            let is_under_way = now.open && intent.is_none() && flush.first == now.position;
            if flush.end <= now.position || is_named || is_under_way || !path.exists() {
                continue;
            }
            let (path, first, end) = (path.display(), flush.first, flush.end);
            let what = format!(
                "{path} is of a flush of entries {first}..{end}, which is not done and not under \
                 way: readers see its rows, and they do not count"
            );
            self.now_findings.push(Finding::general(what, NOT_OURS));
        }
        Ok(())
    }

    /// The flush that is under way; nothing where it is done meanwhile, or damaged.
    fn intent(&mut self, first: u64) -> Result<Option<Intent>, AuditError> {
        let path = self.dir.join(intent_path(self.log, first));
        let text = match read_bounded(&path, MARKER_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AuditError::Moved),
            text => text.map_err(|error| error.to_string()),
        };
        let shown = path.display().to_string();
        let told = text.and_then(|text| {
            let told = Intent::read(&shown, &text, (self.log, first));
            told.map_err(|error| error.to_string())
        });
        let why = match told {
            Ok(Told::Surely(intent) | Told::Perhaps(intent)) => return Ok(Some(intent)),
            Ok(Told::Damaged(why)) | Err(why) => why,
        };
        let what = format!("the intent {shown}: {why}");
        let todo = "look at the disk; where it is only damaged, the aggregator redoes that flush \
                    at its next start, by the files that it had put";
        let finding = Finding::general(what, todo);
        if !self.now_findings.has(&finding) {
            self.now_findings.push(finding);
        }
        Ok(None)
    }

    fn see(&mut self, file: &OfFlush) {
        let OfFlush { flush, table, path } = file;
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
            self.read_findings.push(Finding::general(what, PUT_BACK));
        }
        if *table == Table::Gaps && footer.is_some() {
            self.read_gaps(*flush, path);
        }
        self.remember(*flush, *table, path, footer);
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
        for (lane, tally) in footer.lanes.iter().filter_map(tally_of) {
            if !own {
                let all = self.others.entry(lane).or_default();
                *all = all.and(tally);
                continue;
            }
            if marked {
                let all = seen.lanes.entry(lane.clone()).or_default();
                *all = all.and(tally);
            }
            let all = self.lanes.entry(lane).or_default();
            *all = all.and(tally);
        }
    }

    fn read_gaps(&mut self, flush: Flush, path: &Path) {
        let own = flush.log == self.log;
        match gap_rows(path) {
            Ok(rows) => {
                for row in rows {
                    match row {
                        Gap::Of(lane, gap) if own => self.declare(*lane, gap),
                        Gap::Of(lane, gap) => {
                            let (first, end) = numbers_of(&gap);
                            let without = self.others_without_rows.entry(*lane).or_default();
                            without.insert_missing(first, end, BatchHash([0; 32]));
                        }
                        Gap::Journal(..) if !own => {}
                        Gap::Journal(first, count) => self.read_findings.push(Finding::general(
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
                self.read_findings.push(Finding::general(what, PUT_BACK));
            }
        }
    }

    fn declare(&mut self, lane: LaneId, gap: GapReport) {
        let (first, end) = numbers_of(&gap);
        let declared = self.declared.entry(lane.clone()).or_default();
        declared.insert_missing(first, end, BatchHash([0; 32]));
        self.gaps.entry(lane).or_default().push(gap);
    }

    /// A file in `rejected/`.
    fn see_rejected(&mut self, name: &str) {
        let Some((stem, ending @ ("json" | "batches"))) = name.rsplit_once('.') else {
            return;
        };
        let counts = |flush: &Flush| flush.log != self.log || flush.end <= self.position;
        let flush = flush_of(stem).filter(|flush| self.is_new(flush) && counts(flush));
        let Some(flush) = flush else { return };
        *self.rejected.entry(flush).or_default() += 1;
        if ending == "json" {
            let path = self.dir.join("rejected").join(name);
            if let Err(why) = self.read_list(flush, &path) {
                let what = format!("{}: {why}", path.display());
                self.read_findings.push(Finding::general(what, PUT_BACK));
            }
        }
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
            if flush.log != self.log {
                let of_one = Tally {
                    batches: 1,
                    rows: 0,
                    sum: HashSum::default().with(hash),
                };
                let all = self.others.entry(lane.clone()).or_default();
                *all = all.and(of_one);
                self.others_without_rows
                    .entry(lane)
                    .or_default()
                    .insert(number, hash);
                continue;
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

    /// Compares each marker with the files of its entries.
    fn read_markers(&mut self, chain: &[(u64, u64)]) -> Result<(), AuditError> {
        self.marked = Marked {
            lanes: Some(Tallies::new()),
            are_whole: true,
            ..Marked::default()
        };
        for (first, end) in chain {
            let name = format!("{first:020}-{end:020}.done");
            let path = self.markers().join(name);
            let said = match read_bounded(&path, MARKER_BYTES_MAX) {
                // Folded meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(AuditError::Moved);
                }
                said => said.map_err(|error| error.to_string()),
            };
            let shown = path.display().to_string();
            let done = said.and_then(|text| {
                Done::read(&shown, &text, self.log).map_err(|error| error.to_string())
            });
            match done {
                Ok(done) => self.check_marker(&done, (*first, *end)),
                Err(why) => {
                    let what = format!("the marker {shown}: {why}");
                    let finding = Finding::general(what, PUT_BACK);
                    self.marked.findings.push(finding);
                    self.marked.are_whole = false;
                    self.marked.lanes = None;
                }
            }
        }
        Ok(())
    }

    fn check_marker(&mut self, done: &Done, (first, end): (u64, u64)) {
        let sum = u128::from_str_radix(&done.hash_sum, 16).unwrap_or(0);
        let marked = Tally {
            batches: done.batches,
            rows: done.rows,
            sum: HashSum(sum),
        };
        self.marked.all = self.marked.all.and(marked);
        self.mark_lanes(done);
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
        let rejected = self.rejected.range(within);
        files += rejected.map(|(_, files)| *files).sum::<u64>();
        self.marked.files += files;
        let (all_files, all_rows) = (done.files, done.rows);
        let log = self.log;
        let seen = self.flushes.get(&Flush { log, first, end });
        let shorts = by_lane(done, seen, &self.set_apart);
        if files != all_files || rows != all_rows {
            let what = format!(
                "the flush of entries {first}..{end} wrote {all_files} files with {all_rows} \
                 readings, and there are {files} files with {rows}"
            );
            let todo = match files > all_files {
                true => "the file that is too many is a copy: take it away",
                false => "put back what is missing from a copy of the lake",
            };
            let finding = Finding::general(what, todo);
            self.marked.findings.push(finding);
        }
        let shorts = shorts.into_iter();
        let shorts = shorts.map(|lane| Short { lane, first, end });
        self.marked.shorts.extend(shorts);
    }

    fn mark_lanes(&mut self, done: &Done) {
        let folded = done.lanes.is_empty() && done.batches > 0;
        let Some(marked) = self.marked.lanes.as_mut().filter(|_| !folded) else {
            self.marked.lanes = None;
            return;
        };
        for (lane, tally) in done.lanes.iter().filter_map(tally_of) {
            let all = marked.entry(lane).or_default();
            *all = all.and(tally);
        }
    }

    /// What files say of each lane, `rejected/` among them.
    pub(super) fn lanes(&self) -> Tallies {
        let mut lanes = self.lanes.clone();
        for (lane, held) in &self.set_apart {
            let all = lanes.entry(lane.clone()).or_default();
            *all = all.and(Tally::of(held));
        }
        lanes
    }

    /// What is wrong, but for what is not the lake's own.
    pub(super) fn findings(&self) -> Findings {
        let mut all = self.read_findings.clone();
        all.extend(self.marked.findings.clone());
        all.extend(self.now_findings.clone());
        all
    }

    /// What is worth knowing of files of other journals.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut others: BTreeMap<LogId, u64> = BTreeMap::new();
        for (flush, seen) in &self.flushes {
            if flush.log != self.log {
                *others.entry(flush.log).or_default() += seen.files;
            }
        }
        let note = |(log, files)| {
            format!(
                "{files} files of journal {log}, which is not here, lie in the lake: their \
                 batches are compared with --deep alone"
            )
        };
        others.into_iter().map(note).collect()
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

fn tally_of(sum: &LaneSum) -> Option<(LaneId, Tally)> {
    let lane = lane_of(&sum.agent, &sum.buffer, &sum.lane)?;
    let tally = Tally {
        batches: sum.batches,
        rows: sum.rows,
        sum: HashSum(u128::from_str_radix(&sum.hash_sum, 16).ok()?),
    };
    Some((lane, tally))
}
