//! Compares what ledger, journal and lake say, lane by lane. It reads no file but the quarantine's
//! folder.

use super::deep::Rows;
use super::journal::{Journal, lanes_of, only_in};
use super::lake::{Lake, PUT_BACK, Short};
use super::report::{
    Elsewhere, Finding, GapReport, LaneReport, REPORT_VERSION, Report, Run, Span, Stated,
};
use super::{LaneId, Numbers, Tally};
use crate::limits::AUDIT_GAPS_LISTED_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tributary_protocol::ids::{BatchHash, HashSum, Lane};
use tributary_protocol::ledger::Ledger;
use tributary_protocol::ranges::HeldRanges;

const NOT_ONE: &str = "ledger and lake are not of one journal and one time: put back from a copy \
                       what was rolled back or changed";
const FORGOTTEN: &str = "the ledger has forgotten them, or something else wrote them: put journal \
                         and checkpoints back from a copy, before an agent sends them again";
const REPEATS: &str = "no file keeps them; a running aggregator counts those since its start at \
                       /metrics, tributary_aggregator_replayed_batches_total";

fn hex(sum: HashSum) -> String {
    format!("{:032x}", sum.0)
}

fn spans_of(held: Option<&HeldRanges>) -> Vec<Span> {
    let runs = held.into_iter().flat_map(HeldRanges::iter);
    runs.map(|run| (run.first, run.end)).collect()
}

/// What ledger and markers say of a lane, where that is not the same.
fn differ(lane: &LaneId, expected: Tally, marked: Tally) -> Option<Finding> {
    let what = format!(
        "the ledger has {} batches of it that should be in the lake (hash sum {}), the lake's \
         markers tell of {} (hash sum {})",
        expected.batches,
        hex(expected.sum),
        marked.batches,
        hex(marked.sum)
    );
    (!expected.is_same(marked)).then(|| Finding::of(lane, Vec::new(), what, NOT_ONE))
}

/// What other aggregators hold of each lane, and below which number all was acknowledged.
type Others = BTreeMap<LaneId, (Vec<Elsewhere>, u64)>;

fn others_of(ledger: &Ledger) -> Others {
    let mut others = Others::new();
    for agent in ledger.agents() {
        for lane in ledger.lanes(agent) {
            let elsewhere = lane.elsewhere.iter().map(|(log, held)| Elsewhere {
                log: log.to_string(),
                numbers: spans_of(Some(held)),
            });
            let elsewhere: Vec<_> = elsewhere.collect();
            if lane.floor > 0 || !elsewhere.is_empty() {
                others.insert((agent.clone(), lane.key), (elsewhere, lane.floor));
            }
        }
    }
    others
}

/// Everything that is compared.
struct Parts {
    lake: Lake,
    journal: Journal,
    rows: Option<Rows>,
    ledger: Numbers,
    others: Others,
    gaps: BTreeMap<LaneId, Vec<GapReport>>,
    shorts: BTreeMap<LaneId, Vec<Short>>,
    nothing: HeldRanges,
}

/// The report.
pub(super) fn judge(
    data_dir: &Path,
    mut lake: Lake,
    mut journal: Journal,
    rows: Option<Rows>,
) -> Report {
    let mut gaps: BTreeMap<LaneId, Vec<GapReport>> = BTreeMap::new();
    let waiting = std::mem::take(&mut journal.gaps);
    for (lane, gap) in std::mem::take(&mut lake.gaps).into_iter().chain(waiting) {
        gaps.entry(lane).or_default().push(gap);
    }
    let mut shorts: BTreeMap<LaneId, Vec<Short>> = BTreeMap::new();
    for short in std::mem::take(&mut lake.shorts) {
        shorts.entry(short.lane.clone()).or_default().push(short);
    }
    let mut findings = std::mem::take(&mut journal.findings);
    findings.append(&mut lake.findings);
    let (deep, notes) = (rows.is_some(), std::mem::take(&mut lake.notes));
    let ledger = lanes_of(&journal.ledger);
    let others = others_of(&journal.ledger);
    let parts = Parts {
        lake,
        journal,
        rows,
        ledger,
        others,
        gaps,
        shorts,
        nothing: HeldRanges::new(),
    };
    let all: BTreeSet<&LaneId> = parts
        .ledger
        .keys()
        .chain(parts.lake.lanes.keys())
        .chain(parts.journal.held.keys())
        .chain(parts.others.keys())
        .chain(parts.lake.marked_lanes.iter().flat_map(BTreeMap::keys))
        .collect();
    let mut expected = Tally::default();
    let mut lanes = Vec::with_capacity(all.len());
    let before = findings.len();
    for lane in all {
        let (report, of_lane) = parts.lane(lane, &mut findings);
        expected = expected.and(of_lane);
        lanes.push(report);
    }
    if findings.len() == before {
        findings.extend(parts.compare_all(expected));
    }
    let quarantine = std::fs::read_dir(data_dir.join("quarantine"));
    Report {
        version: REPORT_VERSION,
        data_dir: data_dir.display().to_string(),
        log: parts.journal.log.to_string(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        at_us: crate::clock::wall_us(),
        deep,
        journal: (parts.journal.first, parts.journal.end),
        lake_position: parts.lake.position,
        lake_files: parts.lake.files,
        lanes,
        repeats_refused: REPEATS.to_owned(),
        quarantine_files: quarantine.map_or(0, |files| files.count() as u64),
        notes,
        findings,
    }
}

/// Numbers below the greatest one that is held, and that nobody is known to hold.
fn missing(held: &HeldRanges, elsewhere: &[Elsewhere], floor: u64) -> Vec<Span> {
    let mut known = held.clone();
    known.insert_missing(0, floor.min(held.end()), BatchHash([0; 32]));
    for (first, end) in elsewhere.iter().flat_map(|it| it.numbers.iter().copied()) {
        known.insert_missing(first, end, BatchHash([0; 32]));
    }
    known.missing(0, held.end())
}

impl Parts {
    /// The report of one lane, and what of it should be in the lake.
    fn lane(&self, lane: &LaneId, findings: &mut Vec<Finding>) -> (LaneReport, Tally) {
        let held = self.ledger.get(lane).unwrap_or(&self.nothing);
        let waiting = self.journal.waiting.get(lane).unwrap_or(&self.nothing);
        let expected = Tally::of(held).without(Tally::of(waiting));
        let in_lake = self.lake.lanes.get(lane).copied().unwrap_or_default();
        let compared = match lane.1.lane {
            Lane::Series => Vec::new(),
            _ => self.compare(lane, expected, in_lake),
        };
        let marked = self.lake.marked_lanes.as_ref();
        let marked = marked.map(|lanes| lanes.get(lane).copied().unwrap_or_default());
        // What files and markers both say is said once.
        let other = marked.filter(|marked| compared.is_empty() || !marked.is_same(in_lake));
        findings.extend(compared);
        findings.extend(other.and_then(|marked| differ(lane, expected, marked)));
        let kept = self.journal.held.get(lane).unwrap_or(&self.nothing);
        let stated = |tally: Tally, rows| Stated {
            batches: tally.batches,
            rows,
            hash_sum: hex(tally.sum),
        };
        let mut quarantined = self.lake.quarantined.get(lane).cloned().unwrap_or_default();
        for (first, end) in spans_of(self.journal.quarantined.get(lane)) {
            quarantined.insert_missing(first, end, BatchHash([0; 32]));
        }
        let set_apart = self.lake.set_apart.get(lane).unwrap_or(&self.nothing);
        let gaps = self.gaps.get(lane).map_or(&[][..], Vec::as_slice);
        let listed = gaps.len().min(AUDIT_GAPS_LISTED_MAX);
        let run = |run: &tributary_protocol::ranges::Held| Run {
            first: run.first,
            end: run.end,
            hash_sum: hex(run.sum),
        };
        let (elsewhere, floor) = self.others.get(lane).cloned().unwrap_or_default();
        let report = LaneReport {
            agent: lane.0.to_string(),
            buffer: lane.1.buffer.to_string(),
            lane: lane.1.lane.name().to_owned(),
            committed: held.iter().map(run).collect(),
            missing: missing(held, &elsewhere, floor),
            elsewhere,
            floor,
            gaps: gaps.iter().take(listed).cloned().collect(),
            gaps_more: (gaps.len() - listed) as u64,
            quarantined: spans_of(Some(&quarantined)),
            set_apart: only_in(set_apart, &quarantined),
            in_doubt: Vec::new(),
            ledger: stated(Tally::of(held), None),
            journal: stated(Tally::of(kept), None),
            lake: match lane.1.lane {
                Lane::Series => marked.map(|marked| stated(marked, Some(0))),
                _ => Some(stated(in_lake, Some(in_lake.rows))),
            },
            waiting: waiting.count(),
        };
        (report, expected)
    }

    /// What ledger and lake say of a lane.
    fn compare(&self, lane: &LaneId, expected: Tally, in_lake: Tally) -> Vec<Finding> {
        let held = self.ledger.get(lane).unwrap_or(&self.nothing);
        let waiting = self.journal.waiting.get(lane).unwrap_or(&self.nothing);
        let mut below = HeldRanges::new();
        for (first, end) in only_in(held, waiting) {
            below.insert_missing(first, end, BatchHash([0; 32]));
        }
        let mut found = Vec::new();
        if let Some(rows) = &self.rows {
            let there = rows.numbers.get(lane).unwrap_or(&self.nothing);
            let (lost, more) = (only_in(&below, there), only_in(there, held));
            if !lost.is_empty() {
                let what = "the ledger holds them, and the lake has no row of them".to_owned();
                found.push(Finding::of(lane, lost, what, PUT_BACK));
            }
            if !more.is_empty() {
                let what = "the lake has them, and the ledger does not hold them".to_owned();
                found.push(Finding::of(lane, more, what, FORGOTTEN));
            }
        }
        if !expected.is_same(in_lake) {
            let more = in_lake.batches > expected.batches;
            let numbers = match found.is_empty() {
                // Of which the ledger may have forgotten some.
                true if more && held.holes() > 0 => held.missing(0, held.end()),
                true => self.suspects(lane, &below),
                false => Vec::new(),
            };
            let what = format!(
                "the ledger has {} batches of it that should be in the lake (hash sum {}), the \
                 lake has {} (hash sum {})",
                expected.batches,
                hex(expected.sum),
                in_lake.batches,
                hex(in_lake.sum)
            );
            let todo = match self.rows {
                _ if more => FORGOTTEN,
                Some(_) => PUT_BACK,
                None => {
                    "--deep says which numbers they are; what is missing is put back from a \
                         copy of the lake"
                }
            };
            found.push(Finding::of(lane, numbers, what, todo));
        }
        found
    }

    /// The numbers among which those are that disagree: of the flushes that are not whole, as far
    /// as the journal still has them, or all.
    fn suspects(&self, lane: &LaneId, below: &HeldRanges) -> Vec<Span> {
        let mut suspects = HeldRanges::new();
        for short in self.shorts.get(lane).into_iter().flatten() {
            self.journal.batches(short.first..short.end, |read| {
                if read.lane == *lane {
                    for run in &read.runs {
                        suspects.insert_missing(run.start, run.end, read.hash);
                    }
                }
            });
        }
        match suspects.is_empty() {
            true => spans_of(Some(below)),
            false => spans_of(Some(&suspects)),
        }
    }

    /// What ledger and markers say of everything: the one sum in which the lane `series` is, too.
    fn compare_all(&self, expected: Tally) -> Option<Finding> {
        let marked = self.lake.marked;
        if expected.is_same(marked) || !self.lake.markers_are_whole {
            return None;
        }
        let what = format!(
            "the ledger has {} batches of all lanes that should be in the lake (hash sum {}), \
             the lake's markers tell of {} (hash sum {})",
            expected.batches,
            hex(expected.sum),
            marked.batches,
            hex(marked.sum)
        );
        Some(Finding::general(what, NOT_ONE))
    }
}
