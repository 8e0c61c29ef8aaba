//! Compares what ledger, journal and lake say, lane by lane. It reads no file but the quarantine's
//! folder.

use super::deep::Rows;
use super::gaps::Declared;
use super::journal::{Journal, lanes_of, only_in};
use super::lake::{Lake, NOT_OURS, PUT_BACK, Tallies};
use super::report::{
    Elsewhere, Finding, Findings, LaneReport, REPORT_VERSION, Report, Run, Span, Stated, cut,
};
use super::{LaneId, Numbers, Tally, twins};
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
    (!expected.is_same(marked)).then(|| {
        let finding = Finding::of(lane, Vec::new(), what, NOT_ONE);
        finding.about(about("markers", expected, marked))
    })
}

/// By how much two differ: the same from look to look, while both grow.
fn about(what: &str, expected: Tally, there: Tally) -> String {
    let apart = expected.without(there);
    format!("{what} {} {}", apart.batches.cast_signed(), hex(apart.sum))
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
struct Parts<'a> {
    lake: &'a Lake,
    journal: Journal,
    /// What the files of the lake have of each lane, and of which numbers it has rows.
    in_lake: Tallies,
    rows: Option<Numbers>,
    /// Those that are in doubt, as rows say.
    in_doubt: Option<&'a Numbers>,
    ledger: Numbers,
    others: Others,
    gaps: BTreeMap<LaneId, Declared>,
    nothing: HeldRanges,
}

/// The report; of a look that began then.
pub(super) fn judge(
    data_dir: &Path,
    lake: &Lake,
    mut journal: Journal,
    rows: Option<&Rows>,
    began_us: i64,
) -> Report {
    let mut gaps = lake.gaps.clone();
    for (lane, gap) in std::mem::take(&mut journal.gaps) {
        gaps.entry(lane).or_default().push(gap);
    }
    let mut findings = std::mem::take(&mut journal.findings);
    findings.extend(lake.findings());
    findings.extend(rows.map(Rows::findings).unwrap_or_default());
    foreign(lake, rows, &mut findings);
    restored(lake, rows, &mut findings);
    let ledger = lanes_of(&journal.ledger);
    let others = others_of(&journal.ledger);
    let parts = Parts {
        lake,
        journal,
        in_lake: lake.lanes(),
        rows: rows.map(|rows| rows.numbers(lake)),
        in_doubt: rows.map(|rows| &rows.in_doubt),
        ledger,
        others,
        gaps,
        nothing: HeldRanges::new(),
    };
    let mut expected = Tally::default();
    let mut lanes = Vec::new();
    let before = findings.len();
    for lane in parts.all() {
        let (report, of_lane) = parts.lane(lane, &mut findings);
        expected = expected.and(of_lane);
        lanes.push(report);
    }
    if findings.len() == before
        && let Some(wrong) = parts.compare_all(expected)
    {
        findings.push(wrong);
    }
    let (findings, findings_more) = findings.into_parts();
    let dir = data_dir.join("quarantine");
    let unverified = [&parts.lake.quarantined, &parts.journal.quarantined];
    let (alarms, alarms_more) = twins::alarms(&parts.journal.ledger, &dir, unverified);
    let quarantine = std::fs::read_dir(dir);
    Report {
        version: REPORT_VERSION,
        data_dir: data_dir.display().to_string(),
        log: parts.journal.log.to_string(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        at_us: crate::clock::wall_us(),
        began_us,
        deep: rows.is_some(),
        journal: (parts.journal.first, parts.journal.end),
        lake_position: lake.position,
        lake_files: lake.marked.files,
        lanes,
        repeats_refused: REPEATS.to_owned(),
        quarantine_files: quarantine.map_or(0, |files| files.count() as u64),
        alarms,
        alarms_more,
        notes: lake.notes(),
        findings,
        findings_more,
        unsettled: Vec::new(),
    }
}

/// Parquet files that no flush wrote where they lie; with their rows, where rows are read.
fn foreign(lake: &Lake, rows: Option<&Rows>, findings: &mut Findings) {
    for path in &lake.foreign {
        let rows = match rows.map(|rows| rows.of_foreign(path)) {
            None => String::new(),
            Some(Ok((all, 0))) => format!(" ({all} rows)"),
            Some(Ok((all, twice))) => {
                format!(" ({all} rows, {twice} of them of batches that the lake has as well)")
            }
            Some(Err(why)) => format!(" (it can't be read: {why})"),
        };
        let what = format!(
            "{}{rows} is no file that a flush wrote there",
            path.display()
        );
        findings.push(Finding::general(what, NOT_OURS));
    }
}

/// What the journal holds because the lake had it: that files of other journals still have it.
fn restored(lake: &Lake, rows: Option<&Rows>, findings: &mut Findings) {
    for (lane, held) in &lake.restored {
        let wanted = Tally::of(held);
        let there = lake.others.get(lane).copied().unwrap_or_default();
        let missing = rows.map(|rows| rows.missing_in_others(lake, lane, held));
        // Where the lake had some twice, nobody knew a sum; and another aggregator's may be more.
        let knows_sum = wanted.sum != HashSum::default() && there.batches == wanted.batches;
        let is_well = there.batches >= wanted.batches && (!knows_sum || there.is_same(wanted));
        if is_well && missing.as_ref().is_none_or(Vec::is_empty) {
            continue;
        }
        let what = format!(
            "the journal holds {} batches of it because the lake had them when it was begun (hash \
             sum {}), the files of other journals have {} (hash sum {})",
            wanted.batches,
            hex(wanted.sum),
            there.batches,
            hex(there.sum)
        );
        let missing = missing.unwrap_or_else(|| spans_of(Some(held)));
        let finding = Finding::of(lane, missing, what, PUT_BACK);
        findings.push(finding.about(about("restored", wanted, there)));
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

impl Parts<'_> {
    /// Every lane that anything is known of.
    fn all(&self) -> BTreeSet<&LaneId> {
        let known = self.ledger.keys().chain(self.in_lake.keys());
        let known = known.chain(self.journal.held.keys());
        let known = known.chain(self.others.keys());
        let marked = self.lake.marked.lanes.iter().flat_map(BTreeMap::keys);
        known.chain(marked).collect()
    }

    /// The report of one lane, and what of it should be in the lake.
    fn lane(&self, lane: &LaneId, findings: &mut Findings) -> (LaneReport, Tally) {
        let held = self.ledger.get(lane).unwrap_or(&self.nothing);
        let waiting = self.journal.waiting.get(lane).unwrap_or(&self.nothing);
        let restored = self.lake.restored.get(lane).unwrap_or(&self.nothing);
        let expected = Tally::of(held).without(Tally::of(waiting));
        // What the lake had before is in files of other journals.
        let expected = expected.without(Tally::of(restored));
        let in_lake = self.in_lake.get(lane).copied().unwrap_or_default();
        let marked = self.lake.marked.lanes.as_ref();
        let marked = marked.map(|lanes| lanes.get(lane).copied().unwrap_or_default());
        self.disagree(lane, expected, (in_lake, marked), findings);
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
        let gaps = self.gaps.get(lane).cloned().unwrap_or_default();
        let run = |run: &tributary_protocol::ranges::Held| Run {
            first: run.first,
            end: run.end,
            hash_sum: hex(run.sum),
        };
        let (elsewhere, floor) = self.others.get(lane).cloned().unwrap_or_default();
        let mut committed: Vec<Run> = held.iter().map(run).collect();
        let mut missing = missing(held, &elsewhere, floor);
        let mut set_apart = only_in(set_apart, &quarantined);
        let mut quarantined = spans_of(Some(&quarantined));
        let rows_say = self.in_doubt.and_then(|numbers| numbers.get(lane));
        let mut in_doubt = self.journal.in_doubt.get(lane).cloned().unwrap_or_default();
        for (first, end) in spans_of(rows_say) {
            in_doubt.insert_missing(first, end, BatchHash([0; 32]));
        }
        let mut in_doubt = spans_of(Some(&in_doubt));
        let ranges_more = cut(&mut committed)
            + cut(&mut missing)
            + cut(&mut set_apart)
            + cut(&mut quarantined)
            + cut(&mut in_doubt);
        let report = LaneReport {
            agent: lane.0.to_string(),
            buffer: lane.1.buffer.to_string(),
            lane: lane.1.lane.name().to_owned(),
            committed,
            missing,
            elsewhere,
            floor,
            gaps: gaps.listed,
            gaps_more: gaps.more,
            quarantined,
            set_apart,
            in_doubt,
            ledger: stated(Tally::of(held), None),
            journal: stated(Tally::of(kept), None),
            lake: match lane.1.lane {
                Lane::Series => marked.map(|marked| stated(marked, Some(0))),
                _ => Some(stated(in_lake, Some(in_lake.rows))),
            },
            waiting: waiting.count(),
            ranges_more,
        };
        (report, expected)
    }

    /// Finds where files or markers of the lake say of a lane what the ledger does not.
    fn disagree(
        &self,
        lane: &LaneId,
        expected: Tally,
        (in_lake, marked): (Tally, Option<Tally>),
        findings: &mut Findings,
    ) {
        let compared = match lane.1.lane {
            Lane::Series => Vec::new(),
            _ => self.compare(lane, expected, in_lake),
        };
        // What files and markers both say is said once.
        let other = marked.filter(|marked| compared.is_empty() || !marked.is_same(in_lake));
        let differs = other.and_then(|marked| differ(lane, expected, marked));
        let wrong = compared.into_iter().chain(differs);
        wrong.for_each(|wrong| findings.push(wrong));
    }

    /// What ledger and lake say of a lane.
    fn compare(&self, lane: &LaneId, expected: Tally, in_lake: Tally) -> Vec<Finding> {
        let held = self.ledger.get(lane).unwrap_or(&self.nothing);
        let waiting = self.journal.waiting.get(lane).unwrap_or(&self.nothing);
        let mut below = HeldRanges::new();
        for (first, end) in only_in(held, waiting) {
            below.insert_missing(first, end, BatchHash([0; 32]));
        }
        for run in self
            .lake
            .restored
            .get(lane)
            .into_iter()
            .flat_map(HeldRanges::iter)
        {
            below.remove(run.first, run.end);
        }
        let mut found = Vec::new();
        if let Some(rows) = &self.rows {
            let there = rows.get(lane).unwrap_or(&self.nothing);
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
            let about = about("files", expected, in_lake);
            let todo = match self.rows {
                _ if more => FORGOTTEN,
                Some(_) => PUT_BACK,
                None => {
                    "--deep says which numbers they are; what is missing is put back from a \
                         copy of the lake"
                }
            };
            found.push(Finding::of(lane, numbers, what, todo).about(about));
        }
        found
    }

    /// The numbers among which those are that disagree: of the flushes that are not whole, as far
    /// as the journal still has them, or all.
    fn suspects(&self, lane: &LaneId, below: &HeldRanges) -> Vec<Span> {
        let mut suspects = HeldRanges::new();
        let shorts = self.lake.marked.shorts.iter();
        for short in shorts.filter(|short| short.lane == *lane) {
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
        let marked = self.lake.marked.all;
        if expected.is_same(marked) || !self.lake.marked.are_whole {
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
        let finding = Finding::general(what, NOT_ONE);
        Some(finding.about(about("all", expected, marked)))
    }
}
