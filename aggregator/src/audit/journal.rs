//! The journal and the checkpoints, read beside whoever writes them: what the ledger holds at the
//! journal's end, and whether both say the same wherever both speak.

use super::report::{Finding, Findings, GapReport, kind_name};
use super::{AuditError, LaneId, Numbers};
use crate::keeper::record::{self, HeldRecord, RecordKind};
use crate::keeper::store::checkpoint_of;
use crate::limits::REPLAY_READ_BYTES;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::limits::segment_bytes;
use tributary_journal::{
    Checkpoint, Checkpoints, Disk, Entry, LifeId, Log, LogConfig, LogError, LogKind, LogReader,
    Open, OsDisk, ReadOnlyDisk,
};
use tributary_protocol::batch::{Gap, GapPart, SealedBatch};
use tributary_protocol::ids::{BatchHash, BatchKey, LogId, Session};
use tributary_protocol::ledger::{Ledger, Verdict};
use tributary_protocol::ranges::HeldRanges;

const PUT_BACK: &str =
    "put the journal's segment back from a copy, while the aggregator is stopped";

/// What the journal says.
pub(super) struct Journal {
    pub(super) log: LogId,
    pub(super) first: u64,
    pub(super) end: u64,
    /// What is held at the end.
    pub(super) ledger: Ledger,
    /// What the entries hold that are still there.
    pub(super) held: Numbers,
    /// The part of it that the lake does not have yet.
    pub(super) waiting: Numbers,
    /// Held by batches that never verified, as far as the entries tell.
    pub(super) quarantined: Numbers,
    /// Held by batches of which another aggregator may hold the same, as far as the entries tell.
    pub(super) in_doubt: Numbers,
    /// Declared losses that the lake does not have yet.
    pub(super) gaps: Vec<(LaneId, GapReport)>,
    /// Entries that can't be read, and why.
    lost: Vec<(Range<u64>, String)>,
    pub(super) findings: Findings,
    reader: LogReader,
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(ReadOnlyDisk::new(Arc::new(OsDisk)))
}

fn open(data_dir: &Path) -> Result<(LogReader, LifeId), AuditError> {
    let config = LogConfig {
        segment_bytes: segment_bytes(0),
        quota_bytes: u64::MAX,
        reserve_bytes: 0,
        kind: LogKind::Journal,
    };
    let how = Open::SameLife {
        if_empty: LifeId([0; 16]),
    };
    let opened = Log::open(disk(), &data_dir.join("journal"), config, how)?;
    Ok((opened.reader, opened.writer.life()))
}

/// The life of the journal.
pub(super) fn log(data_dir: &Path) -> Result<LogId, AuditError> {
    Ok(LogId(open(data_dir)?.1.0))
}

/// The checkpoints that lie there.
struct Found {
    valid: Vec<Checkpoint>,
    damaged: Vec<PathBuf>,
}

impl Found {
    fn read(data_dir: &Path) -> Result<Self, AuditError> {
        let dir = data_dir.join("ledger");
        // Names first: one that comes meanwhile is not damaged, nor is one that goes.
        let names = disk().list(&dir).unwrap_or_default();
        let valid = Checkpoints::open(disk(), &dir, "ledger")?.valid();
        let good: BTreeSet<String> = valid
            .iter()
            .map(|checkpoint| format!("ledger-{:020}.ckpt", checkpoint.sequence))
            .collect();
        let is_one = |name: &String| name.starts_with("ledger-") && name.ends_with(".ckpt");
        let bad = names.into_iter().filter(is_one);
        let bad = bad.filter(|name| !good.contains(name));
        let damaged = bad.map(|name| dir.join(name)).filter(|path| path.exists());
        Ok(Self {
            damaged: damaged.collect(),
            valid,
        })
    }
}

/// One batch of the journal, understood.
pub(super) struct Read {
    pub(super) entry: u64,
    pub(super) kind: RecordKind,
    pub(super) lane: LaneId,
    pub(super) key: BatchKey,
    pub(super) hash: BatchHash,
    /// The numbers that it took.
    pub(super) runs: Vec<Range<u64>>,
    pub(super) in_doubt: bool,
    pub(super) batch: SealedBatch,
}

fn understand(entry: Entry) -> Option<Result<Read, String>> {
    let kind = RecordKind::from_code(entry.kind)?;
    if !matches!(
        kind,
        RecordKind::Batch | RecordKind::Quarantined | RecordKind::Gap
    ) {
        return None;
    }
    let number = entry.number;
    let read = || {
        let record = record::parse(kind, entry.bytes).map_err(|error| error.to_string())?;
        let batch = SealedBatch::open(record.sealed).map_err(|error| error.to_string())?;
        let key = batch.key();
        let own = key.number..key.number + 1;
        Ok(Read {
            entry: number,
            kind,
            lane: (record.agent, key.lane_key()),
            key,
            hash: batch.hash(),
            in_doubt: record.in_doubt,
            runs: match kind {
                RecordKind::Gap => record.runs,
                _ => vec![own],
            },
            batch,
        })
    };
    Some(read())
}

/// What a walk meets.
pub(super) enum Met {
    Batch(Box<Read>),
    /// Numbers that the lake had when the journal was begun.
    Held(HeldRecord),
    /// These entries can't be read; why.
    Lost(Range<u64>, String),
}

impl Journal {
    /// Opens the journal `log`, of which nothing is read yet.
    pub(super) fn open(data_dir: &Path, log: LogId) -> Result<Self, AuditError> {
        let (reader, life) = open(data_dir)?;
        if LogId(life.0) != log {
            return Err(AuditError::Moved);
        }
        let span = reader.lives().into_iter().find(|span| span.life == life);
        let (first, end) = span.map_or((0, 0), |span| (span.first, span.end));
        Ok(Self {
            log,
            first,
            end,
            ledger: Ledger::new(),
            held: Numbers::new(),
            waiting: Numbers::new(),
            quarantined: Numbers::new(),
            in_doubt: Numbers::new(),
            gaps: Vec::new(),
            lost: Vec::new(),
            findings: Findings::default(),
            reader,
        })
    }

    /// Reads journal and checkpoints. Everything below `lake` is in the lake.
    pub(super) fn read(data_dir: &Path, log: LogId, lake: u64) -> Result<Self, AuditError> {
        // Checkpoints first: what they tell of is in the journal then, or was.
        let checkpoints = Found::read(data_dir)?;
        let mut journal = Self::open(data_dir, log)?;
        let read = journal.read_all(data_dir, checkpoints, lake);
        // What an aggregator that runs let go of meanwhile was not lost.
        let first = Self::open(data_dir, log)?.first;
        let went_on = first > journal.first;
        match read {
            Ok(base) if went_on && first > base.min(lake) => return Err(AuditError::Moved),
            Err(_) if went_on => return Err(AuditError::Moved),
            read => read?,
        };
        journal.tell_lost(first, lake);
        if lake > journal.end {
            let end = journal.end;
            journal.findings.push(Finding::general(
                format!("the lake has entries up to {lake}, the journal ends at {end}"),
                "the journal was rolled back: put it back from a copy",
            ));
        } else if journal.first > lake {
            let first = journal.first;
            journal.findings.push(Finding::general(
                format!("entries {lake}..{first} of the journal are gone, and not in the lake"),
                PUT_BACK,
            ));
        }
        Ok(journal)
    }

    /// From which entry on they became the ledger.
    fn read_all(
        &mut self,
        data_dir: &Path,
        checkpoints: Found,
        lake: u64,
    ) -> Result<u64, AuditError> {
        let known = self.checkpoints(checkpoints);
        self.replay(data_dir, known, lake)
    }

    fn tell_lost(&mut self, first: u64, lake: u64) {
        for (numbers, why) in std::mem::take(&mut self.lost) {
            let (first, end) = (numbers.start.max(first), numbers.end);
            if first >= end {
                continue;
            }
            let kept = match end <= lake {
                true => "the lake took them before",
                false => "the lake does not have them",
            };
            let what = format!("entries {first}..{end} of the journal: {why}; {kept}");
            self.findings.push(Finding::general(what, PUT_BACK));
        }
    }

    /// The ledgers of the checkpoints that belong to this journal, by position.
    fn checkpoints(&mut self, found: Found) -> BTreeMap<u64, Ledger> {
        let mut known = BTreeMap::new();
        for checkpoint in found.valid {
            let sequence = checkpoint.sequence;
            match checkpoint_of(self.log, &checkpoint.body) {
                Ok(Some((ledger, position))) => {
                    known.insert(position, ledger);
                }
                Ok(None) if self.end == 0 => self.findings.push(Finding::general(
                    "the journal is empty, and there are checkpoints of another one".to_owned(),
                    "put the journal back from a copy",
                )),
                Ok(None) => {}
                Err(error) => self.findings.push(Finding::general(
                    format!("checkpoint {sequence} of the ledger: {error}"),
                    "use the program that wrote it",
                )),
            }
        }
        for path in found.damaged {
            let what = format!("{} is damaged", path.display());
            let todo = "the one before it is used, and the next one replaces it: look at the disk";
            self.findings.push(Finding::general(what, todo));
        }
        known
    }

    /// Goes through all entries: from the oldest checkpoint that meets the journal on they become
    /// the ledger, and at each later checkpoint that is what it says, too.
    fn replay(
        &mut self,
        data_dir: &Path,
        mut known: BTreeMap<u64, Ledger>,
        lake: u64,
    ) -> Result<u64, AuditError> {
        if let Some((position, _)) = known.last_key_value().filter(|(at, _)| **at > self.end) {
            self.findings.push(Finding::general(
                format!(
                    "the journal ends at entry {}, its checkpoint stands at {position}",
                    self.end
                ),
                "the journal was rolled back: put it back from a copy",
            ));
        }
        let mut beyond = known.split_off(&(self.end + 1));
        let mut known = known.split_off(&self.first);
        let (base, ledger) = match (self.first, known.pop_first()) {
            (0, oldest) => {
                known.extend(oldest);
                (0, Ledger::new())
            }
            (_, Some(oldest)) => oldest,
            (first, None) => match beyond.pop_last() {
                Some((_, ledger)) => (self.end, ledger),
                None => {
                    let dir = data_dir.to_owned();
                    return Err(AuditError::NoCheckpoint { dir, first });
                }
            },
        };
        self.ledger = ledger;
        self.walk_into(self.first..base, (base, lake))?;
        let mut at = base;
        for (position, said) in known {
            self.walk_into(at..position, (base, lake))?;
            self.compare(at..position, said);
            at = position;
        }
        self.walk_into(at..self.end, (base, lake))?;
        if let Some((_, newest)) = beyond.pop_last() {
            self.ledger = newest;
        }
        Ok(base)
    }

    fn walk_into(
        &mut self,
        entries: Range<u64>,
        (base, lake): (u64, u64),
    ) -> Result<(), AuditError> {
        let reader = self.reader.clone();
        let held = entries.start >= base;
        walk(&reader, self.log, entries, |met| match met {
            Met::Batch(read) => self.take(&read, base, lake),
            Met::Held(record) if held => {
                for run in record.runs {
                    self.ledger.recover_run(&record.agent, record.key, run);
                }
            }
            Met::Held(_) => {}
            Met::Lost(numbers, why) => self.lost.push((numbers, why)),
        })
    }

    fn take(&mut self, read: &Read, base: u64, lake: u64) {
        let Read {
            entry,
            kind,
            lane,
            key,
            hash,
            runs,
            in_doubt,
            batch,
        } = read;
        let spans = || runs.iter().map(|run| (run.start, run.end)).collect();
        let held = self.held.entry(lane.clone()).or_default();
        if !add(held, runs, *hash) {
            let what = format!(
                "entry {entry} of the journal brings a {} whose number was held before",
                kind_name(*kind)
            );
            let todo = "its readings are in the lake twice: tell where the aggregator's disk \
                        was copied or restored";
            self.findings.push(Finding::of(lane, spans(), what, todo));
        }
        if *entry >= lake {
            add(self.waiting.entry(lane.clone()).or_default(), runs, *hash);
            if let Some(gap) = batch.gap() {
                self.gaps.extend(gaps_of(lane, key.number, gap, runs));
            }
        }
        if *kind == RecordKind::Quarantined {
            let quarantined = self.quarantined.entry(lane.clone()).or_default();
            add(quarantined, runs, *hash);
        }
        if *in_doubt {
            let in_doubt = self.in_doubt.entry(lane.clone()).or_default();
            add(in_doubt, runs, *hash);
        }
        if *entry >= base {
            match kind {
                RecordKind::Gap => self.ledger.recover_gap(&lane.0, *key, (*hash, runs)),
                _ => self.ledger.recover(&lane.0, *key, *hash),
            };
            return;
        }
        if let Some(what) = contradiction(&mut self.ledger, read) {
            let what = format!("entry {entry} of the journal holds it, {what}");
            let todo = "put journal and checkpoints back from one copy, both of the same time";
            self.findings.push(Finding::of(lane, spans(), what, todo));
        }
    }

    /// Compares the ledger as the entries make it with what a checkpoint says; goes on with that,
    /// as the aggregator does.
    fn compare(&mut self, entries: Range<u64>, said: Ledger) {
        let position = entries.end;
        let (walked, known) = (lanes_of(&self.ledger), lanes_of(&said));
        let nothing = HeldRanges::new();
        let lanes: BTreeSet<&LaneId> = walked.keys().chain(known.keys()).collect();
        for lane in lanes {
            let walked = walked.get(lane).unwrap_or(&nothing);
            let known = known.get(lane).unwrap_or(&nothing);
            let (lost, more) = (only_in(known, walked), only_in(walked, known));
            if !lost.is_empty() {
                let what = format!(
                    "the ledger holds them (checkpoint at entry {position}), and no entry of the \
                     journal up to there brings them"
                );
                self.findings.push(Finding::of(lane, lost, what, PUT_BACK));
            } else if !more.is_empty() {
                let what = format!(
                    "the journal brings them, and the ledger does not hold them (checkpoint at \
                     entry {position})"
                );
                let todo = "move that checkpoint away while the aggregator is stopped";
                self.findings.push(Finding::of(lane, more, what, todo));
            } else if walked.sum() != known.sum() {
                let numbers = vec![(0, known.end())];
                let what = format!(
                    "the hash sum of the ledger (checkpoint at entry {position}) is {:032x}, \
                     that of the journal {:032x}",
                    known.sum().0,
                    walked.sum().0
                );
                self.findings
                    .push(Finding::of(lane, numbers, what, PUT_BACK));
            }
        }
        self.ledger = said;
    }

    /// The batches among `entries` that are still there and can be read.
    pub(super) fn batches(&self, entries: Range<u64>, mut each: impl FnMut(Read)) {
        let entries = entries.start.max(self.first)..entries.end.min(self.end);
        let walked = walk(&self.reader, self.log, entries, |met| {
            if let Met::Batch(read) = met {
                each(*read);
            }
        });
        if let Err(error) = walked {
            tracing::debug!(%error, "the journal went on");
        }
    }
}

/// Every lane of a ledger.
pub(super) fn lanes_of(ledger: &Ledger) -> Numbers {
    let lanes = ledger.agents().flat_map(|agent| {
        let lanes = ledger.lanes(agent).into_iter();
        lanes.map(|lane| ((agent.clone(), lane.key), lane.held))
    });
    lanes.filter(|(_, held)| !held.is_empty()).collect()
}

/// The numbers that are in `a` and not in `b`.
pub(super) fn only_in(a: &HeldRanges, b: &HeldRanges) -> Vec<(u64, u64)> {
    let runs = a.iter();
    runs.flat_map(|run| b.missing(run.first, run.end)).collect()
}

/// Adds numbers; whether all of them were new.
fn add(held: &mut HeldRanges, runs: &[Range<u64>], hash: BatchHash) -> bool {
    let taken =
        |run: &Range<u64>| held.insert_missing(run.start, run.end, hash) == [(run.start, run.end)];
    // All of them, whatever the first ones were.
    runs.iter().map(taken).filter(|new| !new).count() == 0
}

/// What speaks against a batch that a ledger should hold.
fn contradiction(ledger: &mut Ledger, read: &Read) -> Option<&'static str> {
    let agent = &read.lane.0;
    for run in &read.runs {
        let key = BatchKey {
            number: run.start,
            ..read.key
        };
        // A ledger that was read knows no session: any may ask.
        let verdict = match read.kind {
            RecordKind::Gap => ledger.judge_gap(Session(0), agent, key, (read.hash, run.clone())),
            _ => ledger.judge(Session(0), agent, key, read.hash),
        };
        match verdict {
            Verdict::Replay { .. } => {}
            Verdict::Conflict => return Some("and the ledger with another hash"),
            Verdict::Fresh(admission) => {
                ledger.abort(admission);
                return Some("and the ledger does not");
            }
            _ => return Some("and the ledger does not"),
        }
    }
    None
}

fn gaps_of(lane: &LaneId, batch: u64, gap: &Gap, runs: &[Range<u64>]) -> Vec<(LaneId, GapReport)> {
    // One that begins elsewhere takes its own number alone, whatever it tells of.
    let whole = GapPart {
        first: gap.first,
        count: gap.count,
        readings: gap.readings,
    };
    let parts = match gap.first == batch {
        true => gap.parts(runs),
        false => vec![whole],
    };
    let report = |part: GapPart| GapReport {
        batch,
        first: part.first,
        count: part.count,
        readings: part.readings,
        reason: gap.reason.name().to_owned(),
        detail: gap.detail.clone(),
    };
    let parts = parts.into_iter();
    parts.map(|part| (lane.clone(), report(part))).collect()
}

/// Hands the entries to `each`, in order.
fn walk(
    reader: &LogReader,
    log: LogId,
    entries: Range<u64>,
    mut each: impl FnMut(Met),
) -> Result<(), AuditError> {
    let mut read = Vec::new();
    let mut next = entries.start;
    while next < entries.end {
        match reader.read(LifeId(log.0), next, REPLAY_READ_BYTES, &mut read) {
            Ok(()) => {}
            Err(LogError::Damaged {
                numbers,
                segment,
                offset,
                ..
            }) => {
                let lost = numbers.start..numbers.end.min(entries.end);
                next = lost.end;
                let why = format!("{segment} is damaged from byte {offset} on");
                each(Met::Lost(lost, why));
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        let Some(last) = read.last() else { break };
        next = last.number + 1;
        for entry in read.drain(..).filter(|entry| entry.number < entries.end) {
            let number = entry.number;
            if entry.kind == RecordKind::Held.code() {
                each(match HeldRecord::parse(entry.bytes) {
                    Ok(record) => Met::Held(record),
                    Err(error) => Met::Lost(number..number + 1, error.to_string()),
                });
                continue;
            }
            match understand(entry) {
                None => {}
                Some(Ok(batch)) => each(Met::Batch(Box::new(batch))),
                Some(Err(why)) => each(Met::Lost(number..number + 1, why)),
            }
        }
    }
    Ok(())
}
